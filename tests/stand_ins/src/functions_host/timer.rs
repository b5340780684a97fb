//! Timers: a schedule, and an envelope for the handler.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::package::{Function, Trigger};
use super::{Invocation, Shared, lock};
use crate::client::call;

/// How long an invocation may take (`functionTimeout`'s default on Flex is 30 minutes).
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Fires a timer by its schedule, for ever.
pub(super) async fn keep(shared: Arc<Shared>, function: Function) {
    let Trigger::Timer { schedule, .. } = &function.trigger else {
        return;
    };
    let mut now = Timestamp::now();
    while let Some(next) = schedule.next(now) {
        let pause = Duration::try_from(next.duration_since(Timestamp::now()));
        tokio::time::sleep(pause.unwrap_or(Duration::ZERO)).await;
        fire(&shared, &function, false).await;
        now = Timestamp::now().max(next);
    }
}

/// Invokes a function as its timer would.
pub(super) async fn fire(shared: &Shared, function: &Function, past_due: bool) -> Invocation {
    let outcome =
        tokio::time::timeout(shared.scaled(TIMEOUT), deliver(shared, function, past_due)).await;
    let (succeeded, outcome) = match outcome {
        Ok(Ok((status, answer))) => ((200..300).contains(&status), format!("{status} {answer}")),
        Ok(Err(reason)) => (false, reason),
        Err(_) => (false, "the function timed out".to_owned()),
    };
    if !succeeded {
        tracing::error!(function = function.name, outcome, "the invocation failed");
    }
    let invocation = Invocation {
        function: function.name.clone(),
        succeeded,
        outcome,
    };
    lock(&shared.invocations).push(invocation.clone());
    invocation
}

async fn deliver(
    shared: &Shared,
    function: &Function,
    past_due: bool,
) -> Result<(u16, String), String> {
    let Trigger::Timer { binding, schedule } = &function.trigger else {
        return Err("the function has no timer".to_owned());
    };
    let port = shared.port().await.ok_or("the host has shut down")?;
    let id = invocation_id();
    let envelope = envelope(
        &function.name,
        binding,
        schedule.next(Timestamp::now()),
        past_due,
        &id,
    );
    let headers = [("x-azure-functions-invocationid", id.as_str())];
    let target = format!("/{}", function.name);
    let address = ([127, 0, 0, 1], port).into();
    let answer = call(address, None, "POST", &target, &headers, Some(&envelope)).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let is_json = answer
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/json"));
    if (200..300).contains(&answer.status) && !is_json {
        return Err("the answer is not application/json".to_owned());
    }
    for line in answer.json()["Logs"].as_array().into_iter().flatten() {
        shared.log(false, line.as_str().unwrap_or_default().to_owned());
    }
    Ok((answer.status, answer.text()))
}

/// What `ScriptInvocationContextExtensions` makes of a `TimerInfo`.
fn envelope(name: &str, binding: &str, next: Option<Timestamp>, past_due: bool, id: &str) -> Value {
    let now = Timestamp::now();
    let at = |time: Timestamp| time.to_string();
    json!({
        "Data": {binding: {
            "Schedule": {"AdjustForDST": true},
            "ScheduleStatus": {
                "Last": "0001-01-01T00:00:00", "LastUpdated": at(now),
                "Next": at(next.unwrap_or(now)),
            },
            "IsPastDue": past_due,
        }},
        "Metadata": {"sys": {"MethodName": name, "UtcNow": at(now), "RandGuid": id}},
    })
}

/// A fresh id in the form of a GUID.
pub(super) fn invocation_id() -> String {
    let hex = format!("{:032x}", rand::random::<u128>());
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}
