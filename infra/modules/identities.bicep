// Two identities, so that what the handler may do and what the gateway may do never mix. The
// gateway's is the only one that a container group is given.
param location string
param tags object
param token string

resource handler 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: 'id-popup-handler-${token}'
  location: location
  tags: tags
}

resource gateway 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: 'id-popup-gateway-${token}'
  location: location
  tags: tags
}

output handlerId string = handler.id
output handlerClientId string = handler.properties.clientId
output handlerPrincipalId string = handler.properties.principalId
output gatewayId string = gateway.id
output gatewayName string = gateway.name
output gatewayClientId string = gateway.properties.clientId
output gatewayPrincipalId string = gateway.properties.principalId
