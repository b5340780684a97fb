// An optional private registry. The gateway's identity may pull from it, and nobody may by password.
param location string
param tags object
param token string
param pullPrincipalId string

// Built-in role: AcrPull.
var pull = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '7f951dda-4ed3-4680-a7ca-43fe172d538d')

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' = {
  name: 'crpopupvpn${token}'
  location: location
  tags: tags
  sku: {
    name: 'Basic'
  }
  properties: {
    adminUserEnabled: false
  }
}

resource puller 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, pullPrincipalId, pull)
  scope: registry
  properties: {
    roleDefinitionId: pull
    principalId: pullPrincipalId
    principalType: 'ServicePrincipal'
  }
}

output server string = registry.properties.loginServer
