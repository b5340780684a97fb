// What the handler may do: drive container groups in this resource group, and give them the
// gateway's identity. It may not run commands in a container (exec, attach), assign another
// identity, or touch anything else.
param handlerPrincipalId string
param gatewayIdentityName string

resource gatewayIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' existing = {
  name: gatewayIdentityName
}

resource driveGroups 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, 'popup-vpn-drive-container-groups')
  properties: {
    roleName: 'Popup VPN container groups (${uniqueString(resourceGroup().id)})'
    description: 'Create, read, start, restart and delete container groups, and read their logs.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: [
          'Microsoft.ContainerInstance/containerGroups/read'
          'Microsoft.ContainerInstance/containerGroups/write'
          'Microsoft.ContainerInstance/containerGroups/delete'
          'Microsoft.ContainerInstance/containerGroups/start/action'
          'Microsoft.ContainerInstance/containerGroups/restart/action'
          'Microsoft.ContainerInstance/containerGroups/containers/logs/read'
          'Microsoft.ContainerInstance/locations/operations/read'
        ]
        notActions: []
        dataActions: []
        notDataActions: []
      }
    ]
  }
}

resource assignGatewayIdentity 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, 'popup-vpn-assign-gateway-identity')
  properties: {
    roleName: 'Popup VPN gateway identity (${uniqueString(resourceGroup().id)})'
    description: 'Give a container group the identity this role is assigned on.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: [
          'Microsoft.ManagedIdentity/userAssignedIdentities/read'
          'Microsoft.ManagedIdentity/userAssignedIdentities/assign/action'
        ]
        notActions: []
        dataActions: []
        notDataActions: []
      }
    ]
  }
}

resource handlerDrivesGroups 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(resourceGroup().id, handlerPrincipalId, driveGroups.id)
  properties: {
    roleDefinitionId: driveGroups.id
    principalId: handlerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// On that one identity, not on the group: else the handler could hand out its own.
resource handlerAssignsGatewayIdentity 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(gatewayIdentity.id, handlerPrincipalId, assignGatewayIdentity.id)
  scope: gatewayIdentity
  properties: {
    roleDefinitionId: assignGatewayIdentity.id
    principalId: handlerPrincipalId
    principalType: 'ServicePrincipal'
  }
}
