//! Long-running operations.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ArmError;

/// What a client polls.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) group_id: String,
    pub(super) started_at: Timestamp,
    pub(super) outcome: Outcome,
    /// Whether the group is gone when this has succeeded.
    pub(super) deletes: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Pending,
    Succeeded,
    Failed(ArmError),
}

impl Operation {
    /// The body of a poll, as recorded.
    pub(super) fn body(&self, events: &Value) -> Value {
        let status = match self.outcome {
            Outcome::Pending => "Pending",
            Outcome::Succeeded => "Succeeded",
            Outcome::Failed(_) => "Failed",
        };
        let mut body = json!({
            "id": self.group_id,
            "status": status,
            "startTime": self.started_at.to_string(),
            "properties": {"events": events},
        });
        if let Outcome::Failed(error) = &self.outcome {
            body["error"] = error.body()["error"].clone();
        }
        body
    }
}
