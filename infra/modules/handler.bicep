// The function app: Flex Consumption, a custom handler, everything by identity.
param location string
param tags object
param token string
param identityId string
param identityClientId string
param hostStorageName string
param packageContainer string
param applicationInsightsName string

@description('Name of the workspace for the gateway log; empty for none.')
param gatewayLogWorkspaceName string

@description('Client id of an Entra ID app registration; empty for none.')
param entraClientId string

@description('The settings of the handler that are no secrets.')
param settings object

@description('Key of the account that has the file share; empty for none.')
@secure()
param azureFilesKey string

@description('Connection string of another account for the documents; empty for none.')
@secure()
param storageConnectionString string

resource hostStorage 'Microsoft.Storage/storageAccounts@2023-05-01' existing = {
  name: hostStorageName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: applicationInsightsName
}

resource gatewayLogWorkspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = if (!empty(gatewayLogWorkspaceName)) {
  name: !empty(gatewayLogWorkspaceName) ? gatewayLogWorkspaceName : 'none'
}

// Container Instances takes a workspace by its key only.
var gatewayLogSettings = empty(gatewayLogWorkspaceName)
  ? {}
  : {
      LOG_ANALYTICS_WORKSPACE_ID: gatewayLogWorkspace!.properties.customerId
      LOG_ANALYTICS_WORKSPACE_KEY: gatewayLogWorkspace!.listKeys().primarySharedKey
    }

// Apart from the others, because what is not marked as secret stays readable in the deployment's
// history. Empty counts as unset.
var secretSettings = {
  AZURE_FILES_KEY: azureFilesKey
  AZURE_STORAGE_CONNECTION_STRING: storageConnectionString
}

// In Flex Consumption the platform sets FUNCTIONS_WORKER_RUNTIME and FUNCTIONS_EXTENSION_VERSION.
var platformSettings = {
  AzureWebJobsStorage__blobServiceUri: hostStorage.properties.primaryEndpoints.blob
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
  AZURE_CLIENT_ID: identityClientId
  VPN_BACKEND: 'azure'
}

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: 'plan-popup-${token}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2024-04-01' = {
  name: 'func-popup-${token}'
  location: location
  tags: union(tags, { 'azd-service-name': 'handler' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    keyVaultReferenceIdentity: identityId
    siteConfig: {
      minTlsVersion: '1.2'
      http20Enabled: true
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${hostStorage.properties.primaryEndpoints.blob}${packageContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'custom'
        version: '1.0'
      }
      scaleAndConcurrency: {
        // The handler needs some 20 MB. Two instances serve HTTP and the timer; more are headroom.
        instanceMemoryMB: 512
        maximumInstanceCount: 40
      }
    }
  }

  resource appSettings 'config' = {
    name: 'appsettings'
    properties: union(settings, secretSettings, platformSettings, gatewayLogSettings)
  }

  // Deployment is by Entra ID only.
  resource noFtpPassword 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: {
      allow: false
    }
  }

  resource noDeploymentPassword 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: {
      allow: false
    }
  }

  resource signIn 'config' = if (!empty(entraClientId)) {
    name: 'authsettingsV2'
    properties: {
      platform: {
        enabled: true
      }
      globalValidation: {
        requireAuthentication: true
        unauthenticatedClientAction: 'Return401'
      }
      httpSettings: {
        requireHttps: true
      }
      identityProviders: {
        azureActiveDirectory: {
          enabled: true
          registration: {
            clientId: entraClientId
            openIdIssuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
          }
          validation: {
            allowedAudiences: [
              entraClientId
              'api://${entraClientId}'
            ]
          }
        }
      }
      login: {
        tokenStore: {
          enabled: false
        }
      }
    }
  }
}

output name string = app.name
output url string = 'https://${app.properties.defaultHostName}'
