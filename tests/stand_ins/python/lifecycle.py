"""Drives a container group through its whole life with the unmodified Azure SDK.

usage: lifecycle.py URL CA.pem TOKEN LOCATION

Every step says what it saw; the first that is wrong ends the script with an AssertionError.
"""

import sys
import time

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.containerinstance import ContainerInstanceManagementClient
from azure.mgmt.containerinstance import models

url, ca, token, location = sys.argv[1:5]


class Credential:
    """A token that the test has made."""

    def get_token(self, *scopes, **_):
        return AccessToken(token, int(time.time()) + 3600)


client = ContainerInstanceManagementClient(
    Credential(),
    "00000000-0000-4000-8000-000000000000",
    base_url=url,
    credential_scopes=["https://management.azure.com/.default"],
    connection_verify=ca,
    polling_interval=0,
    retry_backoff_factor=0,
)
groups, containers = client.container_groups, client.containers
PLACE = ("popup-rg", "wireguard-vpn-" + location)
IDENTITY = (
    "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/popup-rg"
    "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/gateway"
)


def request(port=443):
    """A group like the product's."""
    return models.ContainerGroup(
        location=location,
        tags={"lease": "one"},
        identity=models.ContainerGroupIdentity(
            type="UserAssigned",
            user_assigned_identities={IDENTITY: models.UserAssignedIdentities()},
        ),
        os_type="Linux",
        restart_policy="OnFailure",
        containers=[
            models.Container(
                name="gateway",
                image="ghcr.io/popup/gateway:1",
                resources=models.ResourceRequirements(
                    requests=models.ResourceRequests(cpu=1.0, memory_in_gb=1.5)
                ),
                ports=[models.ContainerPort(port=port, protocol="UDP")],
                environment_variables=[
                    models.EnvironmentVariable(name="REGION", value=location),
                    models.EnvironmentVariable(name="SECRET", secure_value="sesame"),
                ],
            )
        ],
        ip_address=models.IpAddress(
            type="Public",
            ports=[models.Port(port=port, protocol="UDP")],
            dns_name_label="popup-vpn",
            auto_generated_domain_name_label_scope="ResourceGroupReuse",
        ),
    )


def refused(call, status, code):
    """Asserts that the service refuses, with this code."""
    try:
        call()
    except HttpResponseError as error:
        assert (error.status_code, error.error.code) == (status, code), error
        return
    raise AssertionError(f"not refused with {code}")


try:
    groups.get(*PLACE)
    raise AssertionError("there is a group already")
except ResourceNotFoundError as error:
    assert error.error.code == "ResourceNotFound", error

refused(
    lambda: groups.begin_create_or_update(*PLACE, request(port=51820)),
    400,
    "InvalidIpAddressPorts",
)

poller = groups.begin_create_or_update(*PLACE, request())
group = poller.result(timeout=30)
assert poller.status() == "Succeeded", poller.status()
assert group.provisioning_state == "Succeeded", group.provisioning_state
assert group.instance_view.state == "Running"
assert group.containers[0].instance_view.current_state.state == "Running"
assert group.containers[0].environment_variables[1].secure_value is None
assert group.ip_address.fqdn.endswith(f".{location}.azurecontainer.io")
assert group.identity.user_assigned_identities[IDENTITY].client_id
first_ip, fqdn = group.ip_address.ip, group.ip_address.fqdn
print("created", first_ip, fqdn)

assert [g.name for g in groups.list_by_resource_group(PLACE[0])] == [PLACE[1]]
assert [g.name for g in groups.list()] == [PLACE[1]]
usages = {usage.name.value: usage.current_value for usage in client.location.list_usage(location)}
assert usages["ContainerGroups"] == 1, usages

tagged = groups.update(*PLACE, models.Resource(tags={"lease": "two"}))
assert tagged.tags == {"lease": "two"}

refused(
    lambda: groups.begin_create_or_update(*PLACE, request(port=500)),
    400,
    "InvalidContainerGroupUpdate",
)
assert containers.list_logs(*PLACE, "gateway").content == ""

groups.stop(*PLACE)
assert groups.get(*PLACE).instance_view.state == "Stopped"
groups.begin_start(*PLACE).result(timeout=30)
again = groups.get(*PLACE)
assert again.ip_address.fqdn == fqdn and again.ip_address.ip != first_ip, again.ip_address
print("started again", again.ip_address.ip)
groups.begin_restart(*PLACE).result(timeout=30)

poller = groups.begin_delete(*PLACE)
poller.wait(timeout=30)
assert poller.status() == "Succeeded", poller.status()
assert not list(groups.list())
groups.begin_delete(*PLACE).wait(timeout=30)
print("deleted")
