//! PUT: the checks, the quotas, and the group that comes of it.

use std::time::Duration;

use jiff::Timestamp;

use super::calls::writes;
use super::{Reply, Request, Simulation};
use crate::arm::address::fqdn;
use crate::arm::fault::Kind;
use crate::arm::group::{Group, Provisioning, Run, Troubles};
use crate::arm::path::GroupPath;
use crate::arm::quota::Remaining;
use crate::arm::spec::Spec;
use crate::arm::view::{self, Detail};
use crate::arm::{ArmError, Identity, rules, schema, update};

impl Simulation {
    pub(super) fn put(
        &mut self,
        path: &GroupPath,
        request: &Request,
        now: Timestamp,
    ) -> Result<Reply, ArmError> {
        self.resource_group_exists(Some(&path.resource_group))?;
        let empty = || ArmError::bad("InvalidRequestContent", "The request content is not JSON.");
        let body = request.body.clone().ok_or_else(empty)?;
        schema::check(&body, request.value("api-version"))?;
        rules::check(&path.name, &body, &self.settings)?;
        let spec = Spec::read(&body);
        let location = rules::normalized(body["location"].as_str().unwrap_or_default());
        let remaining = self.count(path, "create", now)?;
        let key = path.key();
        let existed = match self.groups.get(&key) {
            Some(group) if group.is_transitioning() => {
                return Err(ArmError::transitioning(&path.name));
            }
            Some(group) => {
                update::check(&path.name, &group.body, &body)?;
                true
            }
            None => {
                self.check_quota(path, &location, spec.cores)?;
                false
            }
        };
        let name = self.name_of(path, &location, &spec)?;
        let troubles = self.troubles(request, path, &location, &spec)?;
        self.close(&key, now);
        let identities = spec.identities.iter().map(|id| self.identity(id)).collect();
        let starts = self.groups.get(&key).map_or(0, |group| group.starts);
        self.groups.insert(
            key.clone(),
            Group {
                path: path.clone(),
                location: location.clone(),
                body,
                spec,
                identities,
                fqdn: name,
                provisioning: Provisioning::Pending,
                run: Run::default(),
                starts,
                troubles,
                operation: None,
                deletion: None,
            },
        );
        if !existed {
            self.created += 1;
        }
        let (id, headers) = self.new_operation(path, &location, request, now, false);
        self.begin(&key, &id, now);
        let group = self.find(path)?;
        let status = if existed { 200 } else { 201 };
        Ok(Reply::new(status, view::group(group, Detail::Full))
            .with(headers)
            .with(writes(remaining)))
    }

    /// The faults of the service for this PUT.
    pub(super) fn troubles(
        &mut self,
        request: &Request,
        path: &GroupPath,
        location: &str,
        spec: &Spec,
    ) -> Result<Troubles, ArmError> {
        let mut troubles = Troubles::default();
        if let Some(kind) = self.faults.of_service("PUT", &request.path) {
            match kind {
                Kind::OperationFails { code, message } => {
                    troubles.fails = Some(ArmError::bad(&code, message));
                }
                Kind::InaccessibleImage => {
                    let image = spec
                        .containers
                        .first()
                        .map(|container| container.image.as_str());
                    return Err(ArmError::inaccessible_image(image.unwrap_or_default()));
                }
                Kind::ImagePull => troubles.image_pull = true,
                Kind::CrashLoop { exit_code } => troubles.crash_loop = Some(exit_code),
                Kind::SlowStart { ms } => troubles.slower = Duration::from_millis(ms),
                Kind::LabelTaken => {
                    let label = spec.ip.as_ref().and_then(|ip| ip.label.as_deref());
                    return Err(ArmError::label_taken(label.unwrap_or_default(), &path.name));
                }
                Kind::NoCapacity => return Err(ArmError::no_capacity(location)),
                _ => {}
            }
        }
        Ok(troubles)
    }

    pub(super) fn identity(&self, resource_id: &str) -> Identity {
        let mut known = self.settings.identities.iter();
        let found = known.find(|known| known.resource_id.eq_ignore_ascii_case(resource_id));
        found.cloned().unwrap_or_else(|| Identity::of(resource_id))
    }

    pub(super) fn name_of(
        &self,
        path: &GroupPath,
        location: &str,
        spec: &Spec,
    ) -> Result<Option<String>, ArmError> {
        let Some((ip, label)) = spec
            .ip
            .as_ref()
            .and_then(|ip| Some((ip, ip.label.as_ref()?)))
        else {
            return Ok(None);
        };
        let name = fqdn(label, &ip.scope, location, path);
        let others = self
            .groups
            .values()
            .filter(|group| group.path.key() != path.key());
        if others
            .filter_map(|group| group.fqdn.as_ref())
            .any(|own| *own == name)
        {
            return Err(ArmError::label_taken(label, &path.name));
        }
        Ok(Some(name))
    }

    pub(super) fn count(
        &mut self,
        path: &GroupPath,
        kind: &'static str,
        now: Timestamp,
    ) -> Result<Remaining, ArmError> {
        let quotas = self.settings.quotas;
        let counted = self.rates.count(&path.subscription, kind, &quotas, now);
        counted.map_err(|wait| {
            let mut error = ArmError::new(
                429,
                "TooManyRequests",
                format!("The container group {kind} requests of the subscription are throttled."),
            );
            error.retry_after_s = Some(wait.as_secs().max(1));
            error
        })
    }

    pub(super) fn check_quota(
        &self,
        path: &GroupPath,
        location: &str,
        cores: f64,
    ) -> Result<(), ArmError> {
        let quotas = &self.settings.quotas;
        let (groups, used) = self.usage(&path.subscription, location);
        let reached = |what: &str, limit: f64, used: f64, wanted: f64| {
            Err(ArmError::bad(
                "ContainerGroupQuotaReached",
                format!(
                    "Resource type 'Microsoft.ContainerInstance/containerGroups' container group \
                     quota '{what}' exceeded in region '{location}'. Limit: '{limit}', Usage: \
                     '{used}' Requested: '{wanted}'."
                ),
            ))
        };
        if groups + 1 > quotas.groups {
            return reached("ContainerGroups", quotas.groups as f64, groups as f64, 1.0);
        }
        if used + cores > quotas.cores {
            return reached("StandardCores", quotas.cores, used, cores);
        }
        Ok(())
    }
}
