//! What identities may do: as the project's own templates give it to them, and nothing more.
//!
//! Whoever holds no role here is taken for the subscription's owner, so that a test can look at
//! everything. The service checks the same, with words like these.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::ArmError;

const CONTAINER_GROUPS: &str = include_str!("../../../../infra/modules/roles.bicep");
const DOCUMENTS: &str = include_str!("../../../../infra/modules/documents.bicep");
const ASSIGN: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action";
/// Whose URL is at the subscription, where no role of a resource group reaches. The service lets
/// whoever has begun an operation follow it.
const FOLLOW: &str = "Microsoft.ContainerInstance/locations/operations/read";

/// Roles by principal.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    of: HashMap<String, Grants>,
}

#[derive(Debug, Clone, Default)]
struct Grants {
    /// Actions, and the scope at and below which they are allowed.
    actions: Vec<(String, String)>,
    /// Blob containers, and whether they may be written.
    containers: Vec<(String, bool)>,
}

impl Roles {
    /// Those that `infra/` gives to the handler and to the gateway, each by its principal id, in
    /// this resource group.
    pub fn of_the_template(
        resource_group: &str,
        handler: &str,
        gateway: &str,
        gateway_identity: &str,
    ) -> Self {
        let mut roles = Self::default();
        let principal = |block: &str| match word_after(block, "principalId: ") {
            "handlerPrincipalId" => handler.to_owned(),
            "gatewayPrincipalId" => gateway.to_owned(),
            other => panic!("a role for {other}"),
        };
        for block in resources(CONTAINER_GROUPS, "roleAssignments") {
            let role = word_after(block, "roleDefinitionId: ");
            let definition = resources(CONTAINER_GROUPS, "roleDefinitions")
                .find(|definition| definition.starts_with(role.trim_end_matches(".id")));
            let scope = match block.contains("\n  scope: gatewayIdentity\n") {
                true => gateway_identity,
                false => resource_group,
            };
            let actions = quoted(definition.unwrap_or_default());
            let grants = roles.of.entry(principal(block)).or_default();
            grants.actions.extend(
                actions
                    .filter(|text| text.starts_with("Microsoft.") && !text.contains('@'))
                    .map(|action| (action.to_owned(), scope.to_owned())),
            );
        }
        for block in resources(DOCUMENTS, "roleAssignments") {
            let container = word_after(block, "scope: account::blobs::");
            let may_write = word_after(block, "roleDefinitionId: ") == "write";
            let grants = roles.of.entry(principal(block)).or_default();
            grants.containers.push((container.to_owned(), may_write));
        }
        roles
    }

    /// Whether a principal may send this request to Resource Manager.
    pub fn check(
        &self,
        principal: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(), ArmError> {
        let Some(grants) = self.of.get(principal) else {
            return Ok(());
        };
        let action = action(method, path);
        if !grants.allow(&action, path) {
            return Err(ArmError::new(
                403,
                "AuthorizationFailed",
                format!(
                    "The client '{principal}' with object id '{principal}' does not have \
                     authorization to perform action '{action}' over scope '{path}' or the scope \
                     is invalid. If access was recently granted, please refresh your credentials."
                ),
            ));
        }
        for identity in body.into_iter().flat_map(identities) {
            if !grants.allow(ASSIGN, identity) {
                return Err(ArmError::new(
                    403,
                    "LinkedAuthorizationFailed",
                    format!(
                        "The client '{principal}' with object id '{principal}' has permission to \
                         perform action '{action}' on scope '{path}'; however, it does not have \
                         permission to perform action(s) '{ASSIGN}' on the linked scope(s) \
                         '{identity}' (respectively) or the linked scope(s) are invalid."
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether a principal may send this request to Blob Storage, whose path is
    /// `/account/container/blob`.
    pub fn check_blobs(&self, principal: &str, method: &str, path: &str) -> Result<(), ArmError> {
        let Some(grants) = self.of.get(principal) else {
            return Ok(());
        };
        let container = path.split('/').nth(2).unwrap_or_default();
        let reads = matches!(method, "GET" | "HEAD");
        let allowed = grants
            .containers
            .iter()
            .any(|(own, may_write)| own == container && (reads || *may_write));
        allowed.then_some(()).ok_or_else(|| {
            ArmError::new(
                403,
                "AuthorizationPermissionMismatch",
                "This request is not authorized to perform this operation using this permission.",
            )
        })
    }
}

impl Grants {
    fn allow(&self, action: &str, path: &str) -> bool {
        self.actions.iter().any(|(allowed, scope)| {
            let below = path.len() >= scope.len()
                && path[..scope.len()].eq_ignore_ascii_case(scope)
                && matches!(path.as_bytes().get(scope.len()), None | Some(b'/'));
            allowed.eq_ignore_ascii_case(action) && (below || allowed == FOLLOW)
        })
    }
}

/// The action behind a request: types without names, then what is done.
fn action(method: &str, path: &str) -> String {
    let (_, resource) = path.rsplit_once("/providers/").unwrap_or_default();
    let mut parts = resource.trim_end_matches('/').split('/');
    let mut action = parts.next().unwrap_or_default().to_owned();
    let parts: Vec<&str> = parts.collect();
    for kind in parts.iter().step_by(2) {
        // Writing to a String cannot fail.
        let _ = write!(action, "/{kind}");
    }
    let verb = match method {
        "GET" | "HEAD" => "read",
        "PUT" | "PATCH" => "write",
        "DELETE" => "delete",
        _ => "action",
    };
    format!("{action}/{verb}")
}

/// The identities that a group is to be given, and to pull its image by.
fn identities(body: &Value) -> impl Iterator<Item = &str> {
    let given = body["identity"]["userAssignedIdentities"].as_object();
    let pulling = body["properties"]["imageRegistryCredentials"].as_array();
    let given = given.into_iter().flat_map(|ids| ids.keys());
    let pulling = pulling.into_iter().flatten();
    given
        .map(String::as_str)
        .chain(pulling.filter_map(|registry| registry["identity"].as_str()))
}

/// The resources of a type in a Bicep file, each from its symbol to the next resource.
fn resources<'a>(bicep: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    let wanted = format!("'Microsoft.Authorization/{kind}@");
    bicep.split("\nresource ").skip(1).filter(move |block| {
        block
            .lines()
            .next()
            .is_some_and(|line| line.contains(&wanted))
    })
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('\'').skip(1).step_by(2)
}

fn word_after<'a>(block: &'a str, label: &str) -> &'a str {
    let rest = block.split_once(label).map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GROUP: &str = "/subscriptions/s/resourceGroups/popup";
    const IDENTITY: &str = "/subscriptions/s/resourceGroups/popup/providers/Microsoft.ManagedIdentity/userAssignedIdentities/gateway";

    fn roles() -> Roles {
        Roles::of_the_template(GROUP, "handler", "gateway", IDENTITY)
    }

    fn refused(principal: &str, method: &str, below: &str) -> Option<String> {
        let path = format!("{GROUP}/providers/Microsoft.ContainerInstance/{below}");
        let refused = roles().check(principal, method, &path, None);
        refused.err().map(|error| error.code)
    }

    #[test]
    fn the_handler_may_do_what_its_client_asks_for_and_nothing_else() {
        let group = "containerGroups/wireguard-vpn-westeurope";
        let logs = format!("{group}/containers/gateway/logs");
        for (method, below) in [
            ("GET", "containerGroups"),
            ("GET", group),
            ("PUT", group),
            ("DELETE", group),
            ("POST", &format!("{group}/start")),
            ("POST", &format!("{group}/restart")),
            ("GET", &logs),
        ] {
            assert_eq!(refused("handler", method, below), None, "{method} {below}");
            let other = refused("gateway", method, below);
            assert_eq!(other.as_deref(), Some("AuthorizationFailed"), "{method}");
            assert_eq!(refused("somebody", method, below), None);
        }
        for (method, below) in [
            ("POST", format!("{group}/containers/gateway/exec")),
            ("POST", format!("{group}/containers/gateway/attach")),
            ("POST", format!("{group}/stop")),
            ("GET", "locations/westeurope/usages".to_owned()),
        ] {
            let found = refused("handler", method, &below);
            assert_eq!(found.as_deref(), Some("AuthorizationFailed"), "{below}");
        }
    }

    #[test]
    fn the_handler_reaches_no_other_group_and_no_other_provider() {
        for path in [
            "/subscriptions/s/resourceGroups/popup2/providers/Microsoft.ContainerInstance/containerGroups/a",
            "/subscriptions/s/providers/Microsoft.ContainerInstance/containerGroups",
            "/subscriptions/s/resourceGroups/popup/providers/Microsoft.Storage/storageAccounts/a",
            IDENTITY,
        ] {
            assert!(
                roles().check("handler", "PUT", path, None).is_err(),
                "{path}"
            );
        }
        let operation = "/subscriptions/s/providers/Microsoft.ContainerInstance/locations/westeurope/operations/1";
        assert_eq!(roles().check("handler", "GET", operation, None), Ok(()));
    }

    #[test]
    fn the_handler_gives_away_the_gateways_identity_and_no_other() {
        let path = format!("{GROUP}/providers/Microsoft.ContainerInstance/containerGroups/a");
        let put = |body: &Value| roles().check("handler", "PUT", &path, Some(body));
        let own = json!({"identity": {"userAssignedIdentities": {IDENTITY: {}}}});
        assert_eq!(put(&own), Ok(()));
        let other = IDENTITY.replace("gateway", "handler");
        for body in [
            json!({"identity": {"userAssignedIdentities": {IDENTITY: {}, other.clone(): {}}}}),
            json!({"properties": {"imageRegistryCredentials": [{"identity": other}]}}),
        ] {
            assert_eq!(put(&body).unwrap_err().code, "LinkedAuthorizationFailed");
        }
    }

    #[test]
    fn documents_are_read_and_written_by_those_whose_they_are() {
        let may = |principal: &str| {
            let of = |container: &str| {
                let path = format!("/account/{container}/name");
                let may = |method| roles().check_blobs(principal, method, &path).is_ok();
                (may("GET"), may("PUT"))
            };
            [of("control"), of("status"), of("keys"), of("other")]
        };
        let (no, read, write) = ((false, false), (true, false), (true, true));
        assert_eq!(may("handler"), [write, read, no, no]);
        assert_eq!(may("gateway"), [read, write, write, no]);
        assert_eq!(may("somebody"), [write, write, write, write]);
    }
}
