// The product's own storage: three containers, three sets of roles, no shared key.
//
//             control           status            keys
//   handler   read and write    read              nothing
//   gateway   read              read and write    read and write
param location string
param tags object
param token string
param handlerPrincipalId string
param gatewayPrincipalId string

// Built-in roles: Storage Blob Data Reader and Storage Blob Data Contributor.
var read = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1')
var write = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'ba92f5b4-2d11-453d-a403-e96b0029c9fe')

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: 'stpopupvpn${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    // Container groups with a public address have no fixed one, and are in no network of ours.
    publicNetworkAccess: 'Enabled'
  }

  resource blobs 'blobServices' = {
    name: 'default'
    properties: {
      // Not for blobs: every write of a status would leave a copy, and so would every old key.
      deleteRetentionPolicy: {
        enabled: false
      }
      containerDeleteRetentionPolicy: {
        enabled: true
        days: 7
      }
    }

    resource control 'containers' = {
      name: 'control'
    }

    resource status 'containers' = {
      name: 'status'
    }

    resource keys 'containers' = {
      name: 'keys'
    }
  }
}

resource handlerWritesControl 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account::blobs::control.id, handlerPrincipalId, write)
  scope: account::blobs::control
  properties: {
    roleDefinitionId: write
    principalId: handlerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource handlerReadsStatus 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account::blobs::status.id, handlerPrincipalId, read)
  scope: account::blobs::status
  properties: {
    roleDefinitionId: read
    principalId: handlerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource gatewayReadsControl 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account::blobs::control.id, gatewayPrincipalId, read)
  scope: account::blobs::control
  properties: {
    roleDefinitionId: read
    principalId: gatewayPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource gatewayWritesStatus 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account::blobs::status.id, gatewayPrincipalId, write)
  scope: account::blobs::status
  properties: {
    roleDefinitionId: write
    principalId: gatewayPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource gatewayWritesKeys 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account::blobs::keys.id, gatewayPrincipalId, write)
  scope: account::blobs::keys
  properties: {
    roleDefinitionId: write
    principalId: gatewayPrincipalId
    principalType: 'ServicePrincipal'
  }
}

output url string = account.properties.primaryEndpoints.blob
