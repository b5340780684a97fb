//! Long-running operations: how they are announced, and what a poll answers.

use jiff::Timestamp;

use super::calls::Headers;
use super::{Reply, Request, Simulation};
use crate::arm::operation::{Operation, Outcome};
use crate::arm::path::GroupPath;
use crate::arm::view::{self, Detail};
use crate::arm::{ArmError, LongRunning};

impl Simulation {
    pub(super) fn new_operation(
        &mut self,
        path: &GroupPath,
        location: &str,
        request: &Request,
        now: Timestamp,
        deletes: bool,
    ) -> (String, Headers) {
        let part = rand::random::<u32>;
        let id = format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:08x}{:04x}",
            part(),
            part() >> 16,
            part() >> 20,
            part() >> 20,
            part(),
            part() >> 16
        );
        let operation = Operation {
            group_id: path.id(),
            started_at: now,
            outcome: Outcome::Pending,
            deletes,
        };
        self.operations.insert(id.clone(), operation);
        let headers = self.operation_headers(path, location, request, &id);
        (id, headers)
    }

    pub(super) fn operation_headers(
        &self,
        path: &GroupPath,
        location: &str,
        request: &Request,
        id: &str,
    ) -> Headers {
        let url = format!(
            "{}/subscriptions/{}/providers/Microsoft.ContainerInstance/locations/{location}/operations/{id}?api-version=2018-06-01",
            request.origin, path.subscription
        );
        match self.settings.long_running {
            LongRunning::AsyncOperation => vec![("Azure-AsyncOperation", url)],
            LongRunning::Location => vec![
                ("Location", url),
                (
                    "Retry-After",
                    self.settings.delays.retry_after_s().to_string(),
                ),
            ],
        }
    }

    pub(super) fn operation(&self, id: &str, request: &Request) -> Result<Reply, ArmError> {
        let Some(operation) = self.operations.get(id) else {
            return Err(ArmError::new(
                404,
                "NotFound",
                format!("The operation '{id}' was not found."),
            ));
        };
        let group = self
            .groups
            .values()
            .find(|group| group.path.id() == operation.group_id);
        if self.settings.long_running == LongRunning::AsyncOperation {
            let events = group.and_then(|group| group.run.containers.first());
            let events = view::events(events.map(|c| c.events.as_slice()).unwrap_or_default());
            return Ok(Reply::new(200, operation.body(&events)));
        }
        // A `Location` answers 202 until the end, and then as the request itself would.
        match (&operation.outcome, group) {
            (Outcome::Pending, _) => {
                let again = format!(
                    "{}{}?api-version={}",
                    request.origin,
                    request.path,
                    request.value("api-version").unwrap_or("2018-06-01")
                );
                let after = self.settings.delays.retry_after_s().to_string();
                Ok(Reply::empty(202).with(vec![("Location", again), ("Retry-After", after)]))
            }
            (Outcome::Failed(error), _) => Err(error.clone()),
            (Outcome::Succeeded, Some(group)) if !operation.deletes => {
                Ok(Reply::new(200, view::group(group, Detail::Full)))
            }
            (Outcome::Succeeded, _) => Ok(Reply::empty(204)),
        }
    }
}
