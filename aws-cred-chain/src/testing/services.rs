//! Fakes of the services. They check signatures, tokens, headers and hop limits, and fail on
//! demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::VirtualClock;
#[cfg(feature = "login")]
use super::logins::Logins;
use crate::credentials::{Credentials, Secret};
use crate::sign::percent_decode;
use crate::world::lock;
use crate::world::{BoxFuture, Clock, HttpError, SendHttp};

/// A fault of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Refuses connections.
    Refused,
    /// Accepts connections and never answers.
    Silent,
    /// Answers after this time.
    Slow(Duration),
    /// Answers with this status and an empty body.
    Status(u16),
    /// Answers with status 200 and this body.
    Body(String),
    /// Answers with this status and body.
    Answer(u16, String),
    /// Answers with a body that exceeds the limit of the client.
    Huge,
}

/// A role of the fake STS.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Role {
    /// The ARN of the role.
    pub role_arn: String,
    /// The external id that requests must contain.
    pub external_id: Option<String>,
    /// The MFA device and the code that requests must contain.
    pub mfa: Option<(String, Secret)>,
    /// The web identity token with which the role can be assumed.
    pub web_identity_token: Option<Secret>,
}

impl Role {
    /// Returns a role that requires only a valid signature.
    pub fn new(role_arn: impl Into<String>) -> Self {
        Self { role_arn: role_arn.into(), ..Self::default() }
    }

    /// Requires an external id.
    #[must_use]
    pub fn with_external_id(mut self, id: impl Into<String>) -> Self {
        self.external_id = Some(id.into());
        self
    }

    /// Requires a code of an MFA device.
    #[must_use]
    pub fn with_mfa(mut self, serial: impl Into<String>, code: impl Into<Secret>) -> Self {
        self.mfa = Some((serial.into(), code.into()));
        self
    }

    /// Allows the role to be assumed with a web identity token.
    #[must_use]
    pub fn with_web_identity(mut self, token: impl Into<Secret>) -> Self {
        self.web_identity_token = Some(token.into());
        self
    }
}

/// A request that a service received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// `sts`, `sso`, `sso_oidc`, `container` or `metadata`, else the host.
    pub service: String,
    /// The HTTP method.
    pub method: String,
    /// The path; for STS the action.
    pub operation: String,
    /// The status of the answer.
    pub status: u16,
}

/// The fake services. Clones share their state.
#[derive(Clone, Debug)]
pub struct Services {
    clock: VirtualClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) users: BTreeMap<String, User>,
    pub(super) roles: BTreeMap<String, Role>,
    pub(super) faults: BTreeMap<String, Fault>,
    pub(super) seen: Vec<Seen>,
    pub(super) issued: u64,
    pub(super) sso: Option<Sso>,
    pub(super) container: Option<Container>,
    pub(super) metadata: Option<Metadata>,
    pub(super) metadata_tokens: u64,
    #[cfg(feature = "login")]
    pub(super) logins: Logins,
    #[cfg(feature = "login")]
    pub(super) sign_in: Option<Secret>,
}

#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) secret: Secret,
    pub(super) token: Option<Secret>,
    pub(super) account: String,
    pub(super) expires_at: Option<SystemTime>,
}

#[derive(Clone, Debug)]
pub(super) struct Sso {
    pub(super) access_token: Secret,
    pub(super) refresh_token: Secret,
}

#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) authorization: Option<Secret>,
}

#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) role: Option<String>,
    pub(super) hop_limit: u8,
    pub(super) hops: u8,
    pub(super) v1: bool,
}

pub(super) type Answer = (u16, String);

impl Services {
    pub(super) fn new(clock: VirtualClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// Adds a user to STS.
    pub fn add_user(&self, access_key_id: &str, secret_access_key: &str, account: &str) {
        let user = User {
            secret: secret_access_key.into(),
            token: None,
            account: account.to_owned(),
            expires_at: None,
        };
        lock(&self.state).users.insert(access_key_id.to_owned(), user);
    }

    /// Adds a role to STS.
    pub fn add_role(&self, role: Role) {
        lock(&self.state).roles.insert(role.role_arn.clone(), role);
    }

    /// Starts IAM Identity Center with these tokens. A renewal gives a new access token.
    pub fn set_sso(&self, access_token: &str, refresh_token: &str) {
        lock(&self.state).sso =
            Some(Sso { access_token: access_token.into(), refresh_token: refresh_token.into() });
    }

    /// Answers the next polls for a device's token with these OAuth errors, such as
    /// `authorization_pending`. The poll after them gets a token.
    #[cfg(feature = "login")]
    pub fn set_device_polls<E: Into<String>>(&self, errors: impl IntoIterator<Item = E>) {
        lock(&self.state).logins.polls = errors.into_iter().map(Into::into).collect();
    }

    /// Logs a person in on a login page, and returns the query of the browser's redirect. `None` if
    /// the page does not request an authorization code.
    #[cfg(feature = "login")]
    #[must_use]
    pub fn authorize(&self, url: &str) -> Option<String> {
        lock(&self.state).authorize(url)
    }

    /// Starts the sign-in service with this refresh token. It checks proofs of possession.
    #[cfg(feature = "login")]
    pub fn set_sign_in(&self, refresh_token: &str) {
        lock(&self.state).sign_in = Some(refresh_token.into());
    }

    /// Starts the container endpoint, with the authorization that it requires.
    pub fn set_container(&self, authorization: Option<&str>) {
        lock(&self.state).container =
            Some(Container { authorization: authorization.map(Into::into) });
    }

    /// Starts the metadata service: the instance's role, the hop limit of token answers, the
    /// distance of the caller in hops (1: on the instance itself), and whether version 1 is served.
    pub fn set_metadata(&self, role: Option<&str>, hop_limit: u8, hops: u8, v1: bool) {
        lock(&self.state).metadata =
            Some(Metadata { role: role.map(str::to_owned), hop_limit, hops, v1 });
    }

    /// Makes `service` (a name as in [`Seen::service`]) fail until [`Services::repair`].
    pub fn fault(&self, service: &str, fault: Fault) {
        lock(&self.state).faults.insert(service.to_owned(), fault);
    }

    /// Ends the fault of `service`.
    pub fn repair(&self, service: &str) {
        lock(&self.state).faults.remove(service);
    }

    /// Returns the requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }

    /// Returns the number of requests for an operation.
    #[must_use]
    pub fn count(&self, operation: &str) -> usize {
        lock(&self.state).seen.iter().filter(|seen| seen.operation == operation).count()
    }

    async fn serve(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let service = service(&host, request.uri().path());
        let fault = lock(&self.state).faults.get(&service).cloned();
        match fault {
            Some(Fault::Silent) => std::future::pending::<()>().await,
            Some(Fault::Slow(time)) => self.clock.sleep(time).await,
            _ => {}
        }
        let refused =
            HttpError::Connect { host: host.clone(), reason: "connection refused".to_owned() };
        let (operation, answer) = match fault {
            Some(Fault::Refused) => return Err(refused),
            Some(Fault::Huge) => {
                let bytes_max = crate::world::HTTP_BODY_BYTES_MAX;
                return Err(HttpError::TooLarge { host, bytes_max });
            }
            Some(Fault::Status(status)) => (operation(&service, &request), (status, String::new())),
            Some(Fault::Body(body)) => (operation(&service, &request), (200, body)),
            Some(Fault::Answer(status, body)) => (operation(&service, &request), (status, body)),
            _ => {
                let operation = operation(&service, &request);
                let answer = self.answer(&service, &operation, &request);
                match answer {
                    Some(answer) => (operation, answer),
                    None if service == "metadata" && self.is_far() => {
                        std::future::pending::<()>().await;
                        return Err(refused);
                    }
                    None => return Err(refused),
                }
            }
        };
        lock(&self.state).seen.push(Seen {
            service,
            method: request.method().to_string(),
            operation,
            status: answer.0,
        });
        let mut response = http::Response::new(Bytes::from(answer.1));
        *response.status_mut() = http::StatusCode::from_u16(answer.0).unwrap_or_default();
        Ok(response)
    }

    fn answer(
        &self,
        service: &str,
        operation: &str,
        request: &http::Request<Bytes>,
    ) -> Option<Answer> {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        match service {
            "sts" => Some(state.sts(now, operation, request)),
            "sso" => state.sso(now, request),
            "sso_oidc" => state.sso_oidc(
                #[cfg(feature = "login")]
                now,
                request,
            ),
            #[cfg(feature = "login")]
            "signin" => state.sign_in(now, request),
            "container" => state.container(now, request),
            "metadata" => state.metadata(now, request),
            _ => None,
        }
    }

    fn is_far(&self) -> bool {
        lock(&self.state).metadata.as_ref().is_some_and(|m| m.hops > m.hop_limit)
    }
}

impl SendHttp for Services {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        Box::pin(self.serve(request))
    }
}

fn service(host: &str, path: &str) -> String {
    let known = match host {
        "169.254.169.254" | "[fd00:ec2::254]" => "metadata",
        "169.254.170.2" | "169.254.170.23" | "[fd00:ec2::23]" => "container",
        _ if host.starts_with("sts.") || host.starts_with("sts-fips.") => "sts",
        _ if host.starts_with("oidc.") => "sso_oidc",
        _ if path.starts_with("/federation/") => "sso",
        _ if host.contains(".signin.") => "signin",
        other => other,
    };
    known.to_owned()
}

fn operation(service: &str, request: &http::Request<Bytes>) -> String {
    if service == "sts" {
        return form(request.body()).remove("Action").unwrap_or_default();
    }
    request.uri().path().to_owned()
}

pub(super) fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let decode = |text: &str| String::from_utf8_lossy(&percent_decode(text)).into_owned();
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

pub(super) fn header<'a>(request: &'a http::Request<Bytes>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

impl State {
    /// Issues credentials that STS accepts from now on.
    pub(super) fn issue(&mut self, now: SystemTime, account: &str, life: Duration) -> Credentials {
        self.issued += 1;
        let number = self.issued;
        let expires_at = now + life;
        let token = Secret::from(format!("token-{number}"));
        let credentials =
            Credentials::new(format!("ASIAFAKE{number}"), format!("issued-secret-{number}"))
                .with_session_token(token.clone())
                .with_expires_at(expires_at);
        let user = User {
            secret: credentials.secret_access_key.clone(),
            token: Some(token),
            account: account.to_owned(),
            expires_at: Some(expires_at),
        };
        self.users.insert(credentials.access_key_id.clone(), user);
        credentials
    }
}
