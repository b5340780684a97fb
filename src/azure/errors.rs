//! What an ARM failure means to the person who wanted a VPN, and what to do next.

use std::time::Duration;

use popup_model::Region;

use super::arm::{ArmError, Failure, RequestError};
use crate::vpn::BackendError;

/// A failure that trying again cannot cure, in words for the caller.
#[derive(Debug, thiserror::Error)]
#[error("{advice} (Azure says {code}{})", Said(.message))]
struct Refusal {
    advice: String,
    code: String,
    message: String,
}

struct Said<'a>(&'a str);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            "" => Ok(()),
            message => write!(f, ": {message}"),
        }
    }
}

/// How long to leave a service alone that does not say it.
const RETRY_AFTER: Duration = Duration::from_secs(60);

pub(super) fn backend_error(
    operation: &'static str,
    region: &Region,
    error: ArmError,
) -> BackendError {
    let mut retry_after = None;
    let refusal = match &error.failure {
        Failure::Refused {
            status: 429,
            retry_after: asked,
            ..
        } => {
            retry_after = Some(asked.unwrap_or(RETRY_AFTER));
            None
        }
        Failure::Refused { status, error, .. } => refusal(*status, error, region),
        Failure::Unreachable(_) | Failure::Unusable(_) => None,
    };
    let permanent = refusal.is_some();
    let source = match refusal {
        Some(refusal) => refusal.into(),
        None => error.into(),
    };
    BackendError {
        operation,
        region: region.clone(),
        permanent,
        retry_after,
        source,
    }
}

/// Whether the same request will fail again.
pub(super) fn is_permanent(failure: &Failure, region: &Region) -> bool {
    match failure {
        Failure::Refused { status: 429, .. } | Failure::Unreachable(_) => false,
        Failure::Refused { status, error, .. } => refusal(*status, error, region).is_some(),
        Failure::Unusable(_) => true,
    }
}

/// What an operation that ended badly means.
pub(super) fn failed_operation(region: &Region, said: &RequestError) -> String {
    refusal(400, said, region)
        .map(|refusal| refusal.to_string())
        .unwrap_or_default()
}

/// `None` where trying again may help.
fn refusal(status: u16, said: &RequestError, region: &Region) -> Option<Refusal> {
    let advice = match said.code.as_str() {
        // ContainerGroupQuotaReached, ResourceQuotaExceeded, StandardCoresQuotaReached and others.
        code if code.contains("Quota") => {
            format!(
                "the subscription has no container groups or cores left in {region}: delete \
                 others, choose another region, or ask for more under Quotas in the portal"
            )
        }
        "InaccessibleImage"
        | "InvalidImageName"
        | "ImageNotFound"
        | "RegistryCredentialsInvalid" => {
            "the gateway's image cannot be pulled: check CONTAINER_IMAGE, and for a private \
             registry REGISTRY_SERVER and the AcrPull role of GATEWAY_IDENTITY_ID"
                .to_owned()
        }
        "DnsNameLabelNotAvailable" | "DnsRecordInUse" => format!(
            "the DNS name of the VPN in {region} is taken: another deployment of this resource \
             group's name has it; delete that, or use another RESOURCE_GROUP"
        ),
        "ServiceUnavailable" if status < 500 || has_no_room(&said.message) => no_room(region),
        "ResourceNotAvailableInLocation"
        | "ResourceSomeRequestsNotAvailable"
        | "InsufficientCapacity"
        | "AllocationFailed"
        | "OverconstrainedAllocationRequest" => no_room(region),
        "LocationNotAvailableForResourceType" | "InvalidLocation" | "NoRegisteredProviderFound" => {
            format!("{region} has no Container Instances: take it out of REGIONS")
        }
        "RequestDisallowedByPolicy" | "RequestDisallowedByAzure" | "DisallowedByPolicy" => {
            "a policy of the subscription forbids this container group: ask whoever administers \
             it"
            .to_owned()
        }
        "AuthorizationFailed" | "LinkedAuthorizationFailed" | "AuthorizationPermissionMismatch" => {
            "the handler's identity may not do this: give it the role that infra/ describes, on \
             the resource group and on GATEWAY_IDENTITY_ID"
                .to_owned()
        }
        "MissingSubscriptionRegistration" | "SubscriptionNotRegistered" => {
            "the subscription has never used Container Instances: run az provider register \
             --namespace Microsoft.ContainerInstance, and try again in a few minutes"
                .to_owned()
        }
        "InvalidAuthenticationTokenTenant" => {
            "the handler's identity is of another directory than the subscription: check \
             SUBSCRIPTION_ID and AZURE_TENANT_ID"
                .to_owned()
        }
        "ScopeLocked" => {
            "a lock in the portal keeps the container group as it is: take it off RESOURCE_GROUP"
                .to_owned()
        }
        "ResourceGroupNotFound" | "SubscriptionNotFound" | "InvalidSubscriptionId" => {
            "there is no such place: check SUBSCRIPTION_ID and RESOURCE_GROUP".to_owned()
        }
        "ReadOnlyDisabledSubscription" => {
            "the subscription is disabled, for its bill or its limit: see the portal".to_owned()
        }
        // Others are in the middle of something with this group.
        _ if status == 409 => return None,
        _ if (400..500).contains(&status) && !matches!(status, 401 | 408) => {
            "Azure refuses the container group".to_owned()
        }
        _ => return None,
    };
    let (code, message) = (said.code.clone(), said.message.clone());
    let code = if code.is_empty() {
        format!("HTTP {status}")
    } else {
        code
    };
    Some(Refusal {
        advice,
        code,
        message,
    })
}

fn no_room(region: &Region) -> String {
    format!("Azure has no room for the container in {region} now: try another region")
}

/// Of a 503, what does not pass in a moment.
fn has_no_room(message: &str) -> bool {
    message.contains("not available in the location")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: &str, retry_after_s: Option<u64>) -> BackendError {
        said(status, code, "because", retry_after_s)
    }

    fn said(status: u16, code: &str, message: &str, retry_after_s: Option<u64>) -> BackendError {
        let failure = Failure::Refused {
            status,
            error: RequestError {
                code: code.into(),
                message: message.into(),
            },
            retry_after: retry_after_s.map(Duration::from_secs),
        };
        let error = ArmError {
            operation: "create",
            resource: "g".into(),
            failure,
        };
        backend_error("create", &"northeurope".parse().unwrap(), error)
    }

    #[test]
    fn what_nobody_but_a_person_can_cure_is_permanent_and_names_the_cure_and_the_code() {
        for (status, code, cure) in [
            (400, "ContainerGroupQuotaReached", "Quotas"),
            (409, "ContainerGroupQuotaReached", "Quotas"),
            (400, "ResourceQuotaExceeded", "Quotas"),
            (400, "InaccessibleImage", "CONTAINER_IMAGE"),
            (400, "DnsNameLabelNotAvailable", "taken"),
            (409, "ServiceUnavailable", "another region"),
            (403, "RequestDisallowedByPolicy", "policy"),
            (403, "AuthorizationFailed", "role"),
            (403, "LinkedAuthorizationFailed", "GATEWAY_IDENTITY_ID"),
            (401, "InvalidAuthenticationTokenTenant", "AZURE_TENANT_ID"),
            (409, "ScopeLocked", "lock"),
            (
                409,
                "MissingSubscriptionRegistration",
                "az provider register",
            ),
            (404, "ResourceGroupNotFound", "RESOURCE_GROUP"),
            (400, "SomethingNew", "refuses"),
        ] {
            let error = error(status, code, None);
            let text = error.source.to_string();
            assert!(error.permanent, "{code}");
            assert!(text.contains(cure) && text.contains(code), "{text}");
        }
    }

    #[test]
    fn what_passes_is_not_permanent() {
        for (status, code) in [
            (409, "ContainerGroupTransitioning"),
            (500, "InternalServerError"),
            (503, "ServiceUnavailable"),
            (401, "ExpiredAuthenticationToken"),
        ] {
            assert!(!error(status, code, None).permanent, "{code}");
        }
        let throttled = error(429, "TooManyRequests", Some(17));
        assert!(!throttled.permanent);
        assert_eq!(throttled.retry_after, Some(Duration::from_secs(17)));
    }

    #[test]
    fn a_region_without_room_is_not_a_service_that_is_busy() {
        let message = "The requested resource is not available in the location 'x' at this moment.";
        let full = said(503, "ServiceUnavailable", message, None);
        assert!(full.permanent && full.source.to_string().contains("another region"));
    }
}
