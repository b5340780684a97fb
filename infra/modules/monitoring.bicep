// Log Analytics and Application Insights. The handler sends with its identity; keys are refused.
param location string
param tags object
param token string
param retentionDays int
param publisherPrincipalId string

// Built-in role: Monitoring Metrics Publisher.
var publisherRole = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '3913510d-42f4-4e42-8a64-420c390055eb')

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: 'log-popup-${token}'
  location: location
  tags: tags
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: retentionDays
    // A personal VPN writes a few MB a day. More than this is a fault, and should not cost.
    workspaceCapping: {
      dailyQuotaGb: 1
    }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'appi-popup-${token}'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    DisableLocalAuth: true
    DisableIpMasking: false
  }
}

resource publisher 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, publisherPrincipalId, publisherRole)
  scope: insights
  properties: {
    roleDefinitionId: publisherRole
    principalId: publisherPrincipalId
    principalType: 'ServicePrincipal'
  }
}

output workspaceName string = workspace.name
output applicationInsightsName string = insights.name
