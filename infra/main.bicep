// Everything Popup VPN needs on Azure, in one resource group. One file per concern in modules/.
// The VPN itself is not here: the handler creates its container group at a start and deletes it
// at a stop.
targetScope = 'subscription'

@description('Name of the azd environment. It goes into the names and tags of all resources.')
@minLength(1)
@maxLength(32)
param environmentName string

@description('Where the function app and its storage live. Exits can be in other regions.')
@minLength(1)
@metadata({ azd: { type: 'location' } })
param location string

@description('Regions an exit may be started in, separated by commas, for example westeurope,eastus. Empty for the location alone.')
param regions string = ''

@description('UDP ports of the gateway, at most five, separated by commas. The first goes into client files.')
param vpnPorts string = '443'

@description('Image of the gateway. Pin it by digest for a deployment that must not change by itself.')
@minLength(1)
param containerImage string

@description('Make a private container registry and let the gateway pull from it.')
param privateRegistry bool = false

@description('Network of the tunnel. It is taken over by a deployment\'s first start, and stays.')
param serverNetwork string = '10.8.0.0/24'

@description('Private networks that clients may reach, separated by commas. Empty for none.')
param egressAllow string = ''

@description('Whether clients may reach each other.')
param peerToPeer bool = false

@description('How packets leave the gateway: auto, kernel, raw or socket.')
@allowed(['auto', 'kernel', 'raw', 'socket'])
param gatewayMode string = 'auto'

@description('Packet loops of the gateway, 1 to 16; auto for one for each processor.')
param gatewayThreads string = 'auto'

@description('host:port that mode raw is tested against. Empty for the documents\' storage account.')
param rawProbeTarget string = ''

@description('Name of the interface inside the gateway, as kernel mode and `wg show` have it.')
param serverInterface string = 'wg0'

@description('CPU cores of the gateway.')
param cpu string = '1.0'

@description('Memory of the gateway in GB.')
param memoryGb string = '1.5'

@description('Standard, or Confidential for kernel WireGuard (dearer).')
@allowed(['Standard', 'Confidential'])
param containerSku string = 'Standard'

@description('Send the log of the gateway container to Log Analytics. The workspace key then is an app setting.')
param gatewayLogs bool = false

@description('Seconds a start may wait before it answers 202.')
@minValue(1)
@maxValue(225)
param startWaitSeconds int = 200

@description('What the handler logs, as RUST_LOG has it: info, or popup_vpn=debug,info.')
param rustLog string = 'info'

@description('How the handler logs: json, or text.')
@allowed(['json', 'text'])
param logFormat string = 'json'

@description('Storage account of a file share for the interface\'s key, in place of a blob. One region only.')
param azureFilesAccount string = ''

@description('That file share.')
param azureFilesShare string = ''

@description('That account\'s key: Container Instances takes no identity for a share.')
@secure()
param azureFilesKey string = ''

@description('Connection string of another account for the documents, with its key. Empty for an account of this deployment, by identity.')
@secure()
param storageConnectionString string = ''

@description('Days that logs are kept.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('Client id of an Entra ID app registration. When given, callers must sign in as well.')
param entraClientId string = ''

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName, application: 'popup-vpn' }

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identities 'modules/identities.bicep' = {
  name: 'identities'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
  }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    retentionDays: logRetentionDays
    publisherPrincipalId: identities.outputs.handlerPrincipalId
  }
}

module documents 'modules/documents.bicep' = if (empty(storageConnectionString)) {
  name: 'documents'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    handlerPrincipalId: identities.outputs.handlerPrincipalId
    gatewayPrincipalId: identities.outputs.gatewayPrincipalId
  }
}

module registry 'modules/registry.bicep' = if (privateRegistry) {
  name: 'registry'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    pullPrincipalId: identities.outputs.gatewayPrincipalId
  }
}

module roles 'modules/roles.bicep' = {
  name: 'roles'
  scope: group
  params: {
    handlerPrincipalId: identities.outputs.handlerPrincipalId
    gatewayIdentityName: identities.outputs.gatewayName
  }
}

module hostStorage 'modules/host-storage.bicep' = {
  name: 'host-storage'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    handlerPrincipalId: identities.outputs.handlerPrincipalId
  }
}

module handler 'modules/handler.bicep' = {
  name: 'handler'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    identityId: identities.outputs.handlerId
    identityClientId: identities.outputs.handlerClientId
    hostStorageName: hostStorage.outputs.name
    packageContainer: hostStorage.outputs.packageContainer
    applicationInsightsName: monitoring.outputs.applicationInsightsName
    gatewayLogWorkspaceName: gatewayLogs ? monitoring.outputs.workspaceName : ''
    entraClientId: entraClientId
    settings: {
      SUBSCRIPTION_ID: subscription().subscriptionId
      RESOURCE_GROUP: group.name
      ARM_ENDPOINT: environment().resourceManager
      ARM_AUDIENCE: environment().resourceManager
      REGIONS: empty(regions) ? location : regions
      VPN_PORTS: vpnPorts
      SERVER_NETWORK: serverNetwork
      SERVER_INTERFACE: serverInterface
      EGRESS_ALLOW: egressAllow
      PEER_TO_PEER: string(peerToPeer)
      GATEWAY_MODE: gatewayMode
      GATEWAY_THREADS: gatewayThreads
      RAW_PROBE_TARGET: rawProbeTarget
      CONTAINER_IMAGE: containerImage
      REGISTRY_SERVER: privateRegistry ? registry!.outputs.server : ''
      GATEWAY_IDENTITY_ID: identities.outputs.gatewayId
      GATEWAY_IDENTITY_CLIENT_ID: identities.outputs.gatewayClientId
      STORAGE_ACCOUNT_URL: empty(storageConnectionString) ? documents!.outputs.url : ''
      AZURE_FILES_ACCOUNT: azureFilesAccount
      AZURE_FILES_SHARE: azureFilesShare
      CONTAINER_SKU: containerSku
      CPU: cpu
      MEMORY_GB: memoryGb
      START_WAIT_SECONDS: string(startWaitSeconds)
      RUST_LOG: rustLog
      LOG_FORMAT: logFormat
    }
    azureFilesKey: azureFilesKey
    storageConnectionString: storageConnectionString
  }
  // The roles must be there before the first request; they take minutes to be in force.
  dependsOn: [
    roles
  ]
}

output AZURE_LOCATION string = location
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_TENANT_ID string = tenant().tenantId
output SERVICE_HANDLER_NAME string = handler.outputs.name
output POPUP_VPN_URL string = handler.outputs.url
output AZURE_CONTAINER_REGISTRY_ENDPOINT string = privateRegistry ? registry!.outputs.server : ''
