//! What each request does.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Reply, Request, Simulation, Timer};
use crate::arm::fault::Kind;
use crate::arm::group::{Deletion, Group};
use crate::arm::operation::Outcome;
use crate::arm::path::{GroupPath, Target, parse};
use crate::arm::quota::Remaining;
use crate::arm::view::{self, Detail};
use crate::arm::{ArmError, rules, schema};

/// Names and values.
pub(super) type Headers = Vec<(&'static str, String)>;

impl Reply {
    pub(super) fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Some(body),
        }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: None,
        }
    }

    pub(super) fn with(mut self, headers: Headers) -> Self {
        self.headers.extend(headers);
        self
    }

    /// The answer to a request that failed.
    pub fn of_error(error: &ArmError) -> Self {
        let after = error.retry_after_s.map(|s| ("Retry-After", s.to_string()));
        Self::new(error.status, error.body()).with(after.into_iter().collect())
    }
}

impl Simulation {
    /// Carries a request out.
    pub fn handle_request(&mut self, request: &Request, now: Timestamp) -> Reply {
        self.handle_timeout(now);
        let reply = self
            .dispatch(request, now)
            .unwrap_or_else(|error| Reply::of_error(&error));
        self.most_at_once = self.most_at_once.max(self.groups.len());
        reply
    }

    fn dispatch(&mut self, request: &Request, now: Timestamp) -> Result<Reply, ArmError> {
        let nobody = || {
            ArmError::new(
                404,
                "InvalidResourceType",
                "The resource type could not be found.",
            )
        };
        let target = parse(&request.path).ok_or_else(nobody)?;
        let version = request.value("api-version");
        // Operations have a version of their own (recorded: 2018-06-01).
        if !matches!(target, Target::Operation(_)) {
            schema::check_version(version)?;
        }
        match (request.method.as_str(), target) {
            ("PUT", Target::Group(path)) => self.put(&path, request, now),
            ("GET", Target::Group(path)) => {
                let group = self.find(&path)?;
                Ok(Reply::new(200, view::group(group, Detail::Full)).with(reads()))
            }
            ("DELETE", Target::Group(path)) => self.delete(&path, request, now),
            ("PATCH", Target::Group(path)) => self.patch(&path, request),
            ("POST", Target::Action(path, action)) => self.act(&path, &action, request, now),
            ("GET", Target::Logs(path, container)) => self.logs(&path, &container, request),
            (
                "GET",
                Target::List {
                    subscription,
                    resource_group,
                },
            ) => {
                self.resource_group_exists(resource_group.as_deref())?;
                let same = |own: &str, wanted: &str| own.eq_ignore_ascii_case(wanted);
                let listed = self.groups.values().filter(|group| {
                    let wanted = resource_group.as_deref();
                    same(&group.path.subscription, &subscription)
                        && wanted.is_none_or(|wanted| same(&group.path.resource_group, wanted))
                });
                let value: Value = listed
                    .map(|group| view::group(group, Detail::Listed))
                    .collect();
                Ok(Reply::new(200, json!({"value": value})).with(reads()))
            }
            ("GET", Target::Operation(id)) => self.operation(&id, request),
            (
                "GET",
                Target::Usages {
                    subscription,
                    location,
                },
            ) => Ok(self.usages(&subscription, &rules::normalized(&location))),
            _ => Err(ArmError::new(
                405,
                "MethodNotAllowed",
                format!("The method {} is not allowed here.", request.method),
            )),
        }
    }

    pub(super) fn find(&self, path: &GroupPath) -> Result<&Group, ArmError> {
        self.resource_group_exists(Some(&path.resource_group))?;
        self.groups
            .get(&path.key())
            .ok_or_else(|| view::not_found(path))
    }

    pub(super) fn resource_group_exists(&self, name: Option<&str>) -> Result<(), ArmError> {
        let known = &self.settings.resource_groups;
        match name {
            Some(name)
                if !known.is_empty() && !known.iter().any(|own| own.eq_ignore_ascii_case(name)) =>
            {
                Err(ArmError::new(
                    404,
                    "ResourceGroupNotFound",
                    format!("Resource group '{name}' could not be found."),
                ))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn usage(&self, subscription: &str, location: &str) -> (usize, f64) {
        let here = self.groups.values().filter(|group| {
            group.path.subscription.eq_ignore_ascii_case(subscription) && group.location == location
        });
        here.fold((0, 0.0), |(groups, cores), group| {
            (groups + 1, cores + group.spec.cores)
        })
    }

    fn usages(&self, subscription: &str, location: &str) -> Reply {
        let (groups, cores) = self.usage(subscription, location);
        let quotas = &self.settings.quotas;
        let usage = |name: &str, current: f64, limit: f64| {
            json!({
                "unit": "Count", "currentValue": current, "limit": limit,
                "name": {"value": name, "localizedValue": name},
            })
        };
        let value = [
            usage("ContainerGroups", groups as f64, quotas.groups as f64),
            usage("StandardCores", cores, quotas.cores),
        ];
        Reply::new(200, json!({"value": value})).with(reads())
    }

    fn delete(
        &mut self,
        path: &GroupPath,
        request: &Request,
        now: Timestamp,
    ) -> Result<Reply, ArmError> {
        self.resource_group_exists(Some(&path.resource_group))?;
        let key = path.key();
        let Some(group) = self.groups.get(&key) else {
            return Ok(Reply::empty(204));
        };
        let location = group.location.clone();
        if group.deletion.is_some() {
            let id = group.operation.clone().unwrap_or_default();
            let headers = self.operation_headers(path, &location, request, &id);
            return Ok(Reply::empty(202).with(headers));
        }
        self.count(path, "delete", now)?;
        let shown = self
            .find(path)
            .map(|group| view::group(group, Detail::Full))?;
        let slower = match self.faults.of_service("DELETE", &request.path) {
            Some(Kind::SlowDelete { ms }) => Duration::from_millis(ms),
            _ => Duration::ZERO,
        };
        let takes = self.settings.delays.deleting + slower;
        self.close(&key, now);
        let (id, headers) = self.new_operation(path, &location, request, now, true);
        if let Some(group) = self.groups.get_mut(&key) {
            let before = group.operation.replace(id);
            group.deletion = Some(Deletion {
                due: takes.is_zero(),
            });
            let error = ArmError::new(
                409,
                "OperationPreempted",
                "The container group was deleted.",
            );
            self.end_operation(before, Outcome::Failed(error));
        }
        if takes.is_zero() {
            self.finish_deletion(&key);
            return Ok(Reply::new(200, shown).with(deletes()));
        }
        self.after(now, takes, Timer::Remove(key));
        Ok(Reply::empty(202).with(headers).with(deletes()))
    }

    fn patch(&mut self, path: &GroupPath, request: &Request) -> Result<Reply, ArmError> {
        self.find(path)?;
        let body = request.body.as_ref().and_then(Value::as_object);
        let only_tags = |name: &String| ["tags", "location", "zones"].contains(&name.as_str());
        let Some(body) = body.filter(|body| body.keys().all(only_tags)) else {
            let text = "Only the tags of a container group can be patched.";
            return Err(ArmError::bad("InvalidRequestContent", text));
        };
        let tags = body.get("tags").cloned().unwrap_or(Value::Null);
        rules::check_tags(&tags)?;
        if let Some(group) = self.groups.get_mut(&path.key())
            && tags.is_object()
        {
            group.body["tags"] = tags;
        }
        Ok(Reply::new(200, view::group(self.find(path)?, Detail::Full)))
    }

    fn act(
        &mut self,
        path: &GroupPath,
        action: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Reply, ArmError> {
        let group = self.find(path)?;
        let (location, stopped) = (group.location.clone(), group.run.stopped);
        if group.is_transitioning() {
            return Err(ArmError::transitioning(&path.name));
        }
        let key = path.key();
        match action {
            "stop" => {
                self.stop(&key, now);
                Ok(Reply::empty(204))
            }
            "start" if !stopped => Ok(Reply::empty(204)),
            _ => {
                self.close(&key, now);
                let (id, headers) = self.new_operation(path, &location, request, now, false);
                self.begin(&key, &id, now);
                let status = if action == "start" { 202 } else { 204 };
                Ok(Reply::empty(status).with(headers))
            }
        }
    }

    fn stop(&mut self, key: &str, now: Timestamp) {
        self.close(key, now);
        let delays = self.settings.delays;
        if let Some(group) = self.groups.get_mut(key) {
            group.run.stopped = true;
            for index in 0..group.run.containers.len() {
                let running = |state: &str| state != "Terminated";
                if group
                    .run
                    .containers
                    .get(index)
                    .is_some_and(|c| running(c.current.state))
                {
                    // 143: ended by SIGTERM.
                    group.exited(index, 143, now, &delays);
                }
            }
        }
    }

    fn logs(
        &self,
        path: &GroupPath,
        container: &str,
        request: &Request,
    ) -> Result<Reply, ArmError> {
        let group = self.find(path)?;
        let index = group
            .spec
            .containers
            .iter()
            .position(|spec| spec.name == container);
        let state = index.and_then(|index| group.run.containers.get(index));
        let Some(state) = state else {
            return Err(ArmError::new(
                404,
                "ContainerNotFound",
                format!(
                    "The container '{container}' in container group '{}' was not found.",
                    path.name
                ),
            ));
        };
        let lines = request.value("tail").and_then(|text| text.parse().ok());
        Ok(Reply::new(200, json!({"content": state.log.tail(lines)})).with(reads()))
    }
}

impl Request {
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let found = self
            .query
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

fn reads() -> Headers {
    vec![(
        "x-ms-ratelimit-remaining-subscription-reads",
        "11999".to_owned(),
    )]
}

fn deletes() -> Headers {
    vec![(
        "x-ms-ratelimit-remaining-subscription-deletes",
        "14999".to_owned(),
    )]
}

pub(super) fn writes(remaining: Remaining) -> Headers {
    vec![
        (
            "x-ms-ratelimit-remaining-subscription-resource-requests-pt1h",
            remaining.per_hour.to_string(),
        ),
        (
            "x-ms-ratelimit-remaining-subscription-resource-requests-pt5m",
            remaining.per_5_minutes.to_string(),
        ),
        (
            "x-ms-ratelimit-remaining-subscription-writes",
            "1199".to_owned(),
        ),
    ]
}
