//! The calls. Each sends one request; whether to send another is the caller's decision, except
//! that reads are tried again in a moment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::headers::Headers;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::{Context, HttpClient, Method, Pipeline, PipelineSendOptions, Request, Url};
use popup_store::azure::{client_options, describe};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::API_VERSION;
use super::error::{ArmError, Failure};
use super::model::{ContainerGroup, GroupPage, GroupRequest, Logs};
use super::operation::{self, Operation, OperationStatus};

/// One call, its token included.
const PATIENCE: Duration = Duration::from_secs(25);
const READ_ATTEMPTS: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(300);
/// A longer wait is for the caller of the caller.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5);
const MAX_PAGES: usize = 20;

/// Container groups of one resource group.
#[derive(Clone)]
pub struct ArmClient {
    pipeline: Pipeline,
    arm: Url,
    subscription: String,
    resource_group: String,
}

impl fmt::Debug for ArmClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArmClient({}, {})", self.arm, self.resource_group)
    }
}

struct Answer {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

impl ArmClient {
    /// A client of `arm`, whose tokens are asked for `audience`. Names must be plain: they become
    /// parts of URLs.
    pub fn new(
        arm: Url,
        audience: &str,
        credential: Arc<dyn TokenCredential>,
        http: &Arc<dyn HttpClient>,
        subscription: String,
        resource_group: String,
    ) -> Self {
        let scope = format!("{}/.default", audience.trim_end_matches('/'));
        let bearer = BearerTokenAuthorizationPolicy::new(credential, [scope]);
        let pipeline = Pipeline::new(
            option_env!("CARGO_PKG_NAME"),
            option_env!("CARGO_PKG_VERSION"),
            client_options(http),
            Vec::new(),
            vec![Arc::new(bearer)],
            None,
        );
        Self {
            pipeline,
            arm,
            subscription,
            resource_group,
        }
    }

    /// A group; `None` when there is none of that name.
    pub async fn group(&self, name: &str) -> Result<Option<ContainerGroup>, ArmError> {
        let answer = self.read("read", name, self.group_url(name)).await;
        match answer {
            Err(ArmError {
                failure:
                    Failure::Refused {
                        status: 404, error, ..
                    },
                ..
            }) if error.code != "ResourceGroupNotFound" && error.code != "SubscriptionNotFound" => {
                Ok(None)
            }
            answer => Ok(Some(parsed("read", name, &answer?)?)),
        }
    }

    /// Creates a group, or replaces it: the caller has looked first.
    pub async fn create(
        &self,
        name: &str,
        request: &GroupRequest,
    ) -> Result<Option<Operation>, ArmError> {
        let error = |failure| ArmError {
            operation: "create",
            resource: name.into(),
            failure,
        };
        let body = serde_json::to_vec(request)
            .map_err(|cause| error(Failure::Unusable(cause.to_string())))?;
        let answer = self
            .send("create", name, Method::Put, self.group_url(name), body)
            .await?;
        Ok(Operation::announced(&answer.headers, &self.arm))
    }

    /// Deletes a group; fine when there is none.
    pub async fn delete(&self, name: &str) -> Result<Option<Operation>, ArmError> {
        let url = self.group_url(name);
        match self
            .send("delete", name, Method::Delete, url, Vec::new())
            .await
        {
            Ok(answer) if answer.status == 202 => {
                Ok(Operation::announced(&answer.headers, &self.arm))
            }
            Ok(_) => Ok(None),
            Err(ArmError {
                failure: Failure::Refused { status: 404, .. },
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts a group that was stopped.
    pub async fn start(&self, name: &str) -> Result<Option<Operation>, ArmError> {
        self.act("start", name).await
    }

    /// Starts all containers of a group again.
    pub async fn restart(&self, name: &str) -> Result<Option<Operation>, ArmError> {
        self.act("restart", name).await
    }

    /// All groups, without what goes on in them.
    pub async fn list(&self) -> Result<Vec<ContainerGroup>, ArmError> {
        let mut groups = Vec::new();
        let mut next = Some(self.url(&[]));
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { break };
            let answer = self.read("list", &self.resource_group, url).await?;
            let page: GroupPage = parsed("list", &self.resource_group, &answer)?;
            groups.extend(page.value);
            let link = page.next_link.and_then(|link| Url::parse(&link).ok());
            next = link.filter(|link| link.origin() == self.arm.origin());
        }
        Ok(groups)
    }

    /// The last lines that a container wrote.
    pub async fn logs(&self, name: &str, container: &str, lines: u32) -> Result<String, ArmError> {
        let mut url = self.url(&[name, "containers", container, "logs"]);
        url.query_pairs_mut()
            .append_pair("tail", &lines.to_string());
        let answer = self.read("read the log of", name, url).await?;
        let logs: Logs = parsed("read the log of", name, &answer)?;
        Ok(logs.content)
    }

    /// How far an operation is. Operations lie at the subscription, where a role that ends at the
    /// resource group may not reach, and are forgotten after a while.
    pub async fn operation(&self, name: &str, operation: &Operation) -> OperationStatus {
        let url = operation.url.clone();
        match self.read("follow the operation on", name, url).await {
            Ok(answer) => operation::status(answer.status, &answer.headers, &answer.body),
            Err(error) => {
                debug!(%error, "the group alone tells how far it is");
                OperationStatus::Unknown
            }
        }
    }

    async fn act(&self, action: &'static str, name: &str) -> Result<Option<Operation>, ArmError> {
        let url = self.url(&[name, action]);
        let answer = self
            .send(action, name, Method::Post, url, Vec::new())
            .await?;
        Ok(Operation::announced(&answer.headers, &self.arm))
    }

    fn group_url(&self, name: &str) -> Url {
        self.url(&[name])
    }

    fn url(&self, below: &[&str]) -> Url {
        let mut url = self.arm.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            segments.extend(["subscriptions", &self.subscription]);
            segments.extend(["resourceGroups", &self.resource_group]);
            segments.extend([
                "providers",
                "Microsoft.ContainerInstance",
                "containerGroups",
            ]);
            segments.extend(below);
        }
        url.query_pairs_mut()
            .append_pair("api-version", API_VERSION);
        url
    }

    async fn read(
        &self,
        operation: &'static str,
        name: &str,
        url: Url,
    ) -> Result<Answer, ArmError> {
        let mut attempt = 1;
        loop {
            let error = match self
                .send(operation, name, Method::Get, url.clone(), Vec::new())
                .await
            {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let asked = match &error.failure {
                Failure::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
                _ => Duration::ZERO,
            };
            let hopeless = !error.failure.is_passing() || asked > LONGEST_RETRY_AFTER;
            if hopeless || attempt >= READ_ATTEMPTS {
                return Err(error);
            }
            debug!(attempt, %error, "asking again");
            sleep(asked.max(BACKOFF * attempt)).await;
            attempt += 1;
        }
    }

    async fn send(
        &self,
        operation: &'static str,
        name: &str,
        method: Method,
        url: Url,
        body: Vec<u8>,
    ) -> Result<Answer, ArmError> {
        let mut request = Request::new(url, method);
        request.insert_header("accept", "application/json");
        if !body.is_empty() {
            request.insert_header("content-type", "application/json");
            request.set_body(body);
        }
        let options = PipelineSendOptions {
            skip_checks: true,
            ..PipelineSendOptions::default()
        };
        let context = Context::new();
        let sent = timeout(
            PATIENCE,
            self.pipeline.send(&context, &mut request, Some(options)),
        );
        let failure = match sent.await {
            Ok(Ok(response)) => {
                let (status, headers, body) = response.deconstruct();
                let status = u16::from(status);
                if (200..300).contains(&status) {
                    return Ok(Answer {
                        status,
                        headers,
                        body: body.as_ref().to_vec(),
                    });
                }
                Failure::refused(status, body.as_ref(), operation::retry_after(&headers))
            }
            Ok(Err(error)) => Failure::Unreachable(describe(&error)),
            Err(_) => Failure::Unreachable(format!("no answer within {PATIENCE:?}")),
        };
        Err(ArmError {
            operation,
            resource: name.to_owned(),
            failure,
        })
    }
}

fn parsed<T: DeserializeOwned>(
    operation: &'static str,
    name: &str,
    answer: &Answer,
) -> Result<T, ArmError> {
    serde_json::from_slice(&answer.body).map_err(|error| ArmError {
        operation,
        resource: name.to_owned(),
        failure: Failure::Unusable(error.to_string()),
    })
}
