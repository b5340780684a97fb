//! Faults that a test asks for.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ArmError;

/// A fault for the next requests that match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: Kind,
    /// Only for this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only when the path contains this.
    #[serde(default)]
    pub path: Option<String>,
    /// For how many requests.
    #[serde(default = "once")]
    pub count: u32,
}

fn once() -> u32 {
    1
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Kind {
    /// This answer, and nothing is done.
    Respond {
        /// The HTTP status.
        status: u16,
        /// ARM's code.
        #[serde(default)]
        code: Option<String>,
        /// The header.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// No answer for this long, nothing is done, and then the connection ends.
    Hang {
        /// How long.
        ms: u64,
    },
    /// The connection ends before anything is done.
    Drop,
    /// The request is carried out, and the connection ends instead of an answer.
    LoseAnswer,
    /// The connection ends at once, and the request takes effect after this long.
    Late {
        /// How long.
        ms: u64,
    },
    /// The request takes effect late, and the answer comes later still.
    Hold {
        /// Before it takes effect.
        #[serde(default)]
        before_ms: u64,
        /// From then to the answer.
        #[serde(default)]
        after_ms: u64,
    },
    /// PUT: the operation ends `Failed`; the group stays, `Failed`, and goes on trying.
    OperationFails {
        /// The error's code.
        code: String,
        /// The error's text.
        message: String,
    },
    /// PUT: the registry refuses the image at once.
    InaccessibleImage,
    /// PUT: the image is accepted, and cannot be pulled.
    ImagePull,
    /// PUT: the container ends with this code soon after each start.
    CrashLoop {
        /// The code.
        exit_code: i32,
    },
    /// PUT: starting takes this much longer.
    SlowStart {
        /// How much.
        ms: u64,
    },
    /// DELETE: takes this much longer.
    SlowDelete {
        /// How much.
        ms: u64,
    },
    /// PUT: somebody else has the DNS label.
    LabelTaken,
    /// PUT: the region is full.
    NoCapacity,
}

impl Kind {
    /// The method that it can go with; any when `None`.
    fn method(&self) -> Option<&'static str> {
        match self {
            Self::SlowDelete { .. } => Some("DELETE"),
            Self::OperationFails { .. }
            | Self::InaccessibleImage
            | Self::ImagePull
            | Self::CrashLoop { .. }
            | Self::SlowStart { .. }
            | Self::LabelTaken
            | Self::NoCapacity => Some("PUT"),
            _ => None,
        }
    }

    /// Whether it is about the connection or the answer, not about what the request does.
    fn is_of_transport(&self) -> bool {
        matches!(
            self,
            Self::Respond { .. }
                | Self::Hang { .. }
                | Self::Drop
                | Self::LoseAnswer
                | Self::Late { .. }
                | Self::Hold { .. }
        )
    }
}

/// What the HTTP shell does with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// Pauses, has it carried out, pauses, answers.
    Handle {
        /// The first pause.
        before: Duration,
        /// The second one.
        after: Duration,
    },
    /// Has it carried out and ends the connection.
    HandleAndDrop,
    /// Ends the connection, pauses and has it carried out.
    DropAndHandle {
        /// The pause.
        after: Duration,
    },
    /// Answers this.
    Refuse(ArmError),
    /// Waits and ends the connection.
    Drop {
        /// How long it waits.
        after: Duration,
    },
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub struct Faults(VecDeque<Awaited>);

#[derive(Debug)]
struct Awaited {
    fault: Fault,
    /// Whether any request has met it.
    met: bool,
}

impl Faults {
    /// Adds one.
    pub fn add(&mut self, fault: Fault) {
        self.0.push_back(Awaited { fault, met: false });
    }

    /// Those that no request has met so far: a test that leaves any has tested nothing.
    pub fn unmet(&self) -> Vec<Fault> {
        let unmet = self.0.iter().filter(|awaited| !awaited.met);
        unmet.map(|awaited| awaited.fault.clone()).collect()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The next fault of the connection for this request.
    pub fn admission(&mut self, method: &str, path: &str) -> Admission {
        let pause = Duration::from_millis;
        match self.take(method, path, Kind::is_of_transport) {
            Some(Kind::Respond {
                status,
                code,
                retry_after_s,
            }) => {
                let code = code.unwrap_or_else(|| default_code(status).to_owned());
                let mut error = ArmError::new(status, &code, "A fault that a test asked for.");
                error.retry_after_s = retry_after_s;
                Admission::Refuse(error)
            }
            Some(Kind::Hang { ms }) => Admission::Drop { after: pause(ms) },
            Some(Kind::Drop) => Admission::Drop {
                after: Duration::ZERO,
            },
            Some(Kind::LoseAnswer) => Admission::HandleAndDrop,
            Some(Kind::Late { ms }) => Admission::DropAndHandle { after: pause(ms) },
            Some(Kind::Hold {
                before_ms,
                after_ms,
            }) => Admission::Handle {
                before: pause(before_ms),
                after: pause(after_ms),
            },
            _ => Admission::Handle {
                before: Duration::ZERO,
                after: Duration::ZERO,
            },
        }
    }

    /// The next fault of the service itself for this request.
    pub(super) fn of_service(&mut self, method: &str, path: &str) -> Option<Kind> {
        self.take(method, path, |kind| !kind.is_of_transport())
    }

    fn take(&mut self, method: &str, path: &str, wanted: fn(&Kind) -> bool) -> Option<Kind> {
        let at = self.0.iter().position(|Awaited { fault, .. }| {
            let its_method = fault.kind.method().or(fault.method.as_deref());
            wanted(&fault.kind)
                && its_method.is_none_or(|its| its.eq_ignore_ascii_case(method))
                && fault.path.as_deref().is_none_or(|part| path.contains(part))
        })?;
        let Awaited { fault, met } = self.0.get_mut(at)?;
        *met = true;
        fault.count = fault.count.saturating_sub(1);
        let kind = fault.kind.clone();
        if fault.count == 0 {
            self.0.remove(at);
        }
        Some(kind)
    }
}

fn default_code(status: u16) -> &'static str {
    match status {
        409 => "Conflict",
        429 => "TooManyRequests",
        500 => "InternalServerError",
        503 => "ServiceUnavailable",
        403 => "AuthorizationFailed",
        _ => "Fault",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_waits_for_its_request_and_ends_after_its_count() {
        let mut faults = Faults::default();
        let text =
            r#"{"kind": "respond", "status": 429, "retryAfterS": 7, "method": "PUT", "count": 2}"#;
        faults.add(serde_json::from_str(text).unwrap());
        let free = Admission::Handle {
            before: Duration::ZERO,
            after: Duration::ZERO,
        };
        assert_eq!(faults.admission("GET", "/x"), free);
        assert_eq!(faults.unmet().len(), 1);
        for _ in 0..2 {
            let Admission::Refuse(error) = faults.admission("PUT", "/x") else {
                panic!("it should be refused");
            };
            assert_eq!((error.status, error.retry_after_s), (429, Some(7)));
        }
        assert!(faults.unmet().is_empty());
        assert_eq!(faults.admission("PUT", "/x"), free);
    }
}
