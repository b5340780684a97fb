// The Functions host's own storage: its timer's lock, its keys, the package. Apart from the
// product's, so that nothing that runs the host can read the documents through it.
param location string
param tags object
param token string
param handlerPrincipalId string

// Built-in role: Storage Blob Data Owner. The host asks for it on this account.
var owner = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b')

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: 'stpopupfn${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: {
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: 'Enabled'
  }

  resource blobs 'blobServices' = {
    name: 'default'

    resource package 'containers' = {
      name: 'package'
    }
  }
}

resource host 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, handlerPrincipalId, owner)
  scope: account
  properties: {
    roleDefinitionId: owner
    principalId: handlerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

output name string = account.name
output packageContainer string = account::blobs::package.name
