//! Fakes of the services. They check signatures, tokens, headers and hop limits, and break on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;

use super::VirtualClock;
use crate::context::{BoxFuture, Clock, HttpError, SendHttp};
use crate::credentials::{Credentials, Secret};
use crate::memory::lock;
use crate::sign::{Signer, Unsigned, percent_decode};
use crate::timestamp;

/// How a service misbehaves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing listens.
    Refused,
    /// It accepts and never answers.
    Silent,
    /// It answers after this time.
    Slow(Duration),
    /// It answers with this status and no body.
    Status(u16),
    /// It answers 200 with this.
    Body(String),
    /// Its answer is larger than is read.
    Huge,
}

/// A role of the fake STS.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Role {
    /// The ARN.
    pub role_arn: String,
    /// The external id that must be sent.
    pub external_id: Option<String>,
    /// The device and the code that must be sent.
    pub mfa: Option<(String, Secret)>,
    /// The web identity token that is accepted.
    pub web_identity_token: Option<Secret>,
}

impl Role {
    /// Returns a role that asks for nothing but a valid signature.
    pub fn new(role_arn: impl Into<String>) -> Self {
        Self {
            role_arn: role_arn.into(),
            ..Self::default()
        }
    }

    /// Asks for an external id.
    #[must_use]
    pub fn with_external_id(mut self, id: impl Into<String>) -> Self {
        self.external_id = Some(id.into());
        self
    }

    /// Asks for a code of a device.
    #[must_use]
    pub fn with_mfa(mut self, serial: impl Into<String>, code: impl Into<Secret>) -> Self {
        self.mfa = Some((serial.into(), code.into()));
        self
    }

    /// Accepts a web identity token.
    #[must_use]
    pub fn with_web_identity(mut self, token: impl Into<Secret>) -> Self {
        self.web_identity_token = Some(token.into());
        self
    }
}

/// One request that a service has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// `sts`, `sso`, `sso_oidc`, `container`, `metadata`, or the host.
    pub service: String,
    /// The method.
    pub method: String,
    /// The path; for STS the action.
    pub operation: String,
    /// The status that was answered.
    pub status: u16,
}

/// The services, shared by its clones.
#[derive(Clone, Debug)]
pub struct Services {
    clock: VirtualClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
    faults: BTreeMap<String, Fault>,
    seen: Vec<Seen>,
    issued: u64,
    sso: Option<Sso>,
    container: Option<Container>,
    metadata: Option<Metadata>,
    metadata_tokens: u64,
    #[cfg(feature = "login")]
    sign_in: Option<Secret>,
}

#[derive(Clone, Debug)]
struct User {
    secret: Secret,
    token: Option<Secret>,
    account: String,
    expires_at: Option<SystemTime>,
}

#[derive(Clone, Debug)]
struct Sso {
    access_token: Secret,
    refresh_token: Secret,
}

#[derive(Clone, Debug)]
struct Container {
    authorization: Option<Secret>,
}

#[derive(Clone, Debug)]
struct Metadata {
    role: Option<String>,
    hop_limit: u8,
    hops: u8,
    v1: bool,
}

type Answer = (u16, String);

impl Services {
    pub(super) fn new(clock: VirtualClock) -> Self {
        Self {
            clock,
            state: Arc::default(),
        }
    }

    /// Lets STS know a user.
    pub fn add_user(&self, access_key_id: &str, secret_access_key: &str, account: &str) {
        let user = User {
            secret: secret_access_key.into(),
            token: None,
            account: account.to_owned(),
            expires_at: None,
        };
        lock(&self.state)
            .users
            .insert(access_key_id.to_owned(), user);
    }

    /// Lets STS know a role.
    pub fn add_role(&self, role: Role) {
        lock(&self.state).roles.insert(role.role_arn.clone(), role);
    }

    /// Opens IAM Identity Center for these tokens; a renewal gives a new access token.
    pub fn set_sso(&self, access_token: &str, refresh_token: &str) {
        lock(&self.state).sso = Some(Sso {
            access_token: access_token.into(),
            refresh_token: refresh_token.into(),
        });
    }

    /// Opens the sign-in service for this refresh token; it checks the proof of possession.
    #[cfg(feature = "login")]
    pub fn set_sign_in(&self, refresh_token: &str) {
        lock(&self.state).sign_in = Some(refresh_token.into());
    }

    /// Opens the container endpoint, with the authorization that it asks for.
    pub fn set_container(&self, authorization: Option<&str>) {
        lock(&self.state).container = Some(Container {
            authorization: authorization.map(Into::into),
        });
    }

    /// Opens the metadata service: the instance's role, how many hops its token answers live, how many
    /// hops away the caller is (1: on the instance itself), and whether version 1 is served.
    pub fn set_metadata(&self, role: Option<&str>, hop_limit: u8, hops: u8, v1: bool) {
        lock(&self.state).metadata = Some(Metadata {
            role: role.map(str::to_owned),
            hop_limit,
            hops,
            v1,
        });
    }

    /// Lets `service` (a name as in [`Seen::service`]) misbehave until [`Services::repair`].
    pub fn fault(&self, service: &str, fault: Fault) {
        lock(&self.state).faults.insert(service.to_owned(), fault);
    }

    /// Ends a fault.
    pub fn repair(&self, service: &str) {
        lock(&self.state).faults.remove(service);
    }

    /// Returns what was asked so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }

    /// Returns how often an operation was asked for.
    #[must_use]
    pub fn count(&self, operation: &str) -> usize {
        lock(&self.state)
            .seen
            .iter()
            .filter(|seen| seen.operation == operation)
            .count()
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
        let refused = HttpError::Connect {
            host: host.clone(),
            reason: "connection refused".to_owned(),
        };
        let (operation, answer) = match fault {
            Some(Fault::Refused) => return Err(refused),
            Some(Fault::Huge) => {
                let bytes_max = crate::context::HTTP_BODY_BYTES_MAX;
                return Err(HttpError::TooLarge { host, bytes_max });
            }
            Some(Fault::Status(status)) => (operation(&service, &request), (status, String::new())),
            Some(Fault::Body(body)) => (operation(&service, &request), (200, body)),
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
            "sso_oidc" => state.sso_oidc(request),
            #[cfg(feature = "login")]
            "signin" => state.sign_in(now, request),
            "container" => state.container(now, request),
            "metadata" => state.metadata(now, request),
            _ => None,
        }
    }

    fn is_far(&self) -> bool {
        lock(&self.state)
            .metadata
            .as_ref()
            .is_some_and(|m| m.hops > m.hop_limit)
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

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let decode = |text: &str| String::from_utf8_lossy(&percent_decode(text)).into_owned();
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn header<'a>(request: &'a http::Request<Bytes>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>\
         </Error><RequestId>fake</RequestId></ErrorResponse>"
    );
    (status, body)
}

impl State {
    /// Makes keys that are known from now on.
    fn issue(&mut self, now: SystemTime, account: &str, life: Duration) -> Credentials {
        self.issued += 1;
        let number = self.issued;
        let expires_at = now + life;
        let token = Secret::from(format!("token-{number}"));
        let credentials = Credentials::new(
            format!("ASIAFAKE{number}"),
            format!("issued-secret-{number}"),
        )
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

    fn sts(&mut self, now: SystemTime, action: &str, request: &http::Request<Bytes>) -> Answer {
        if header(request, "content-type") != Some("application/x-www-form-urlencoded") {
            return refusal(400, "InvalidParameterValue", "not a form");
        }
        let form = form(request.body());
        let member = |name: &str| form.get(name).map(String::as_str);
        let seconds = member("DurationSeconds")
            .and_then(|s| s.parse().ok())
            .unwrap_or(3600);
        let life = Duration::from_secs(seconds);
        if action == "AssumeRoleWithWebIdentity" {
            let role = member("RoleArn")
                .and_then(|arn| self.roles.get(arn))
                .cloned();
            let token = member("WebIdentityToken");
            return match role {
                Some(role) if role.web_identity_token.as_ref().map(Secret::expose) == token => {
                    self.assumed(now, action, &role.role_arn, life)
                }
                _ => refusal(400, "InvalidIdentityToken", "the token is not accepted"),
            };
        }
        let (id, user) = match self.signer(now, request) {
            Ok(signer) => signer,
            Err(answer) => return answer,
        };
        match action {
            "AssumeRole" => {
                let role = member("RoleArn")
                    .and_then(|arn| self.roles.get(arn))
                    .cloned();
                let Some(role) = role else {
                    return refusal(
                        403,
                        "AccessDenied",
                        "not authorized to perform: sts:AssumeRole",
                    );
                };
                let mfa = role
                    .mfa
                    .as_ref()
                    .map(|(serial, code)| (serial.as_str(), code.expose()));
                let sent = member("SerialNumber").zip(member("TokenCode"));
                if role.external_id.as_deref() != member("ExternalId") || mfa != sent {
                    return refusal(403, "AccessDenied", "external id or MFA code is wrong");
                }
                self.assumed(now, action, &role.role_arn, life)
            }
            "GetSessionToken" => {
                let keys = self.issue(now, &user.account, life);
                (200, envelope(action, &keys, ""))
            }
            "GetCallerIdentity" => {
                let body = format!(
                    "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::{0}:user/\
                     {id}</Arn><UserId>{id}</UserId><Account>{0}</Account></GetCallerIdentityResult>\
                     </GetCallerIdentityResponse>",
                    user.account
                );
                (200, body)
            }
            _ => refusal(400, "InvalidAction", "not known"),
        }
    }

    fn assumed(&mut self, now: SystemTime, action: &str, role_arn: &str, life: Duration) -> Answer {
        let account = role_arn.split(':').nth(4).unwrap_or_default().to_owned();
        let name = role_arn.rsplit('/').next().unwrap_or_default().to_owned();
        let keys = self.issue(now, &account, life);
        let arn = format!("<Arn>arn:aws:sts::{account}:assumed-role/{name}/session</Arn>");
        (200, envelope(action, &keys, &arn))
    }

    /// Checks the signature as AWS would: by signing again with what it knows.
    fn signer(
        &self,
        now: SystemTime,
        request: &http::Request<Bytes>,
    ) -> Result<(String, User), Answer> {
        let denied = |code: &str, message: &str| Err(refusal(403, code, message));
        let authorization = header(request, "authorization").unwrap_or_default();
        let part = |name: &str| {
            let rest = authorization.split_once(name)?.1;
            Some(rest.split(',').next().unwrap_or_default().trim())
        };
        let Some(scope) = part("Credential=") else {
            return denied("MissingAuthenticationToken", "the request is not signed");
        };
        let mut scope = scope.split('/');
        let (id, _, region) = (scope.next(), scope.next(), scope.next().unwrap_or_default());
        let id = id.unwrap_or_default();
        let Some(user) = self.users.get(id) else {
            return denied("InvalidClientTokenId", "the access key id is not known");
        };
        if user.expires_at.is_some_and(|at| at <= now) {
            return denied("ExpiredToken", "the session has expired");
        }
        if user.token.as_ref().map(Secret::expose) != header(request, "x-amz-security-token") {
            return denied("InvalidClientTokenId", "the session token is wrong");
        }
        let time = header(request, "x-amz-date")
            .and_then(compact)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let skew = now
            .duration_since(time)
            .or_else(|_| time.duration_since(now));
        if skew.is_ok_and(|skew| skew > Duration::from_secs(900)) {
            return denied("SignatureDoesNotMatch", "the signature is too old");
        }
        let mut keys = Credentials::new(id, user.secret.clone());
        keys.session_token.clone_from(&user.token);
        let signed: Vec<&str> = part("SignedHeaders=")
            .unwrap_or_default()
            .split(';')
            .collect();
        let host = request
            .uri()
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default();
        let headers: Vec<(&str, &str)> = signed
            .iter()
            .filter(|name| !name.starts_with("x-amz-"))
            .map(|name| {
                let value = if *name == "host" {
                    Some(host.as_str())
                } else {
                    header(request, name)
                };
                (*name, value.unwrap_or_default())
            })
            .collect();
        let uri = request.uri();
        let query = uri.query().unwrap_or_default();
        let unsigned = Unsigned::new(
            request.method().as_str(),
            uri.path(),
            query,
            &headers,
            request.body(),
        );
        let again = Signer::new(&keys, region, "sts", time).sign_headers(&unsigned);
        if part("Signature=") != Some(again.signature.as_str()) {
            return denied("SignatureDoesNotMatch", "the signature is wrong");
        }
        Ok((id.to_owned(), user.clone()))
    }

    fn sso(&mut self, now: SystemTime, request: &http::Request<Bytes>) -> Option<Answer> {
        let sso = self.sso.clone()?;
        if header(request, "x-amz-sso_bearer_token") != Some(sso.access_token.expose()) {
            let body = json!({"message": "Session token not found or invalid"});
            return Some((401, body.to_string()));
        }
        let query = form(request.uri().query().unwrap_or_default().as_bytes());
        let account = query.get("account_id").cloned().unwrap_or_default();
        let keys = self.issue(now, &account, Duration::from_secs(3600));
        let expires = keys
            .expires_at?
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .as_secs()
            * 1000;
        let body = json!({"roleCredentials": {
            "accessKeyId": keys.access_key_id,
            "secretAccessKey": keys.secret_access_key.expose(),
            "sessionToken": keys.session_token.as_ref().map(Secret::expose),
            "expiration": expires,
        }});
        Some((200, body.to_string()))
    }

    fn sso_oidc(&mut self, request: &http::Request<Bytes>) -> Option<Answer> {
        let sso = self.sso.clone()?;
        let body: serde_json::Value = serde_json::from_slice(request.body()).ok()?;
        let refresh = body.get("refreshToken").and_then(serde_json::Value::as_str);
        if request.uri().path() != "/token" || refresh != Some(sso.refresh_token.expose()) {
            let body =
                json!({"error": "invalid_grant", "error_description": "Invalid refresh token"});
            return Some((400, body.to_string()));
        }
        self.issued += 1;
        let access = format!("access-{}", self.issued);
        let body = json!({"accessToken": access, "expiresIn": 28_800, "tokenType": "Bearer"});
        self.sso = Some(Sso {
            access_token: access.into(),
            ..sso
        });
        Some((200, body.to_string()))
    }

    #[cfg(feature = "login")]
    fn sign_in(&mut self, now: SystemTime, request: &http::Request<Bytes>) -> Option<Answer> {
        let expected = self.sign_in.clone()?;
        let refused = |code: &str| Some((400, json!({"error": code, "message": code}).to_string()));
        let url = request.uri().to_string();
        if !header(request, "dpop").is_some_and(|proof| proves(proof, &url, now)) {
            return refused("invalid_request");
        }
        let body: serde_json::Value = serde_json::from_slice(request.body()).ok()?;
        if body["refreshToken"] != expected.expose() || body["grantType"] != "refresh_token" {
            return refused("TOKEN_EXPIRED");
        }
        let keys = self.issue(now, "123456789012", Duration::from_secs(900));
        let refresh = format!("refresh-{}", self.issued);
        self.sign_in = Some(refresh.as_str().into());
        let body = json!({
            "accessToken": {
                "accessKeyId": keys.access_key_id,
                "secretAccessKey": keys.secret_access_key.expose(),
                "sessionToken": keys.session_token.as_ref().map(Secret::expose),
            },
            "tokenType": "aws_sigv4", "expiresIn": 900, "refreshToken": refresh,
        });
        Some((200, body.to_string()))
    }

    fn container(&mut self, now: SystemTime, request: &http::Request<Bytes>) -> Option<Answer> {
        let container = self.container.clone()?;
        let expected = container.authorization.as_ref().map(Secret::expose);
        if header(request, "authorization") != expected {
            let body = json!({"code": "AccessDenied", "message": "token is wrong"});
            return Some((403, body.to_string()));
        }
        Some((200, self.json_keys(now, "Success")))
    }

    fn metadata(&mut self, now: SystemTime, request: &http::Request<Bytes>) -> Option<Answer> {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let metadata = self.metadata.clone()?;
        let path = request.uri().path();
        let not_found = Some((404, String::new()));
        if path == "/latest/api/token" {
            let ttl = header(request, "x-aws-ec2-metadata-token-ttl-seconds");
            let ttl = ttl.and_then(|ttl| ttl.parse::<u32>().ok());
            if request.method() != http::Method::PUT
                || !ttl.is_some_and(|t| (1..=21_600).contains(&t))
            {
                return Some((400, String::new()));
            }
            if header(request, "x-forwarded-for").is_some() {
                return Some((403, String::new()));
            }
            // The answer dies on the way to a caller that is further away.
            if metadata.hops > metadata.hop_limit {
                return None;
            }
            self.metadata_tokens += 1;
            return Some((200, format!("metadata-token-{}", self.metadata_tokens)));
        }
        let token = header(request, "x-aws-ec2-metadata-token");
        let known =
            (1..=self.metadata_tokens).any(|n| token == Some(&format!("metadata-token-{n}")));
        let allowed = known || (token.is_none() && metadata.v1);
        if !allowed {
            return Some((401, String::new()));
        }
        match (metadata.role, path.strip_prefix(ROLES)) {
            (Some(role), Some("")) => Some((200, role)),
            (Some(role), Some(name)) if name == role => Some((200, self.json_keys(now, "Success"))),
            _ if path == "/latest/meta-data/placement/region" => {
                Some((200, "us-west-2".to_owned()))
            }
            _ => not_found,
        }
    }

    fn json_keys(&mut self, now: SystemTime, code: &str) -> String {
        let keys = self.issue(now, "123456789012", Duration::from_secs(6 * 3600));
        json!({
            "Code": code,
            "AccessKeyId": keys.access_key_id,
            "SecretAccessKey": keys.secret_access_key.expose(),
            "Token": keys.session_token.as_ref().map(Secret::expose),
            "Expiration": keys.expires_at.map(timestamp::iso),
        })
        .to_string()
    }
}

fn envelope(action: &str, keys: &Credentials, more: &str) -> String {
    format!(
        "<{action}Response><{action}Result><AssumedRoleUser>{more}</AssumedRoleUser><Credentials>\
         <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}\
         </SessionToken><Expiration>{}</Expiration></Credentials></{action}Result></{action}Response>",
        keys.access_key_id,
        keys.secret_access_key.expose(),
        keys.session_token
            .as_ref()
            .map(Secret::expose)
            .unwrap_or_default(),
        keys.expires_at.map(timestamp::iso).unwrap_or_default(),
    )
}

/// Reads `20210921T184126Z`.
fn compact(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once('T')?;
    if date.len() != 8 || time.len() != 7 || !text.is_ascii() {
        return None;
    }
    timestamp::parse(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        &date[..4],
        &date[4..6],
        &date[6..],
        &time[..2],
        &time[2..4],
        &time[4..6]
    ))
}

/// Checks a proof of possession: its signature by the key in it, what it is for, and its time.
#[cfg(feature = "login")]
fn proves(proof: &str, url: &str, now: SystemTime) -> bool {
    use crate::base64::decode;
    let parts: Vec<&str> = proof.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        return false;
    };
    let json =
        |part: &str| -> Option<serde_json::Value> { serde_json::from_slice(&decode(part)?).ok() };
    let (Some(head), Some(claims), Some(signature)) =
        (json(header), json(payload), decode(signature))
    else {
        return false;
    };
    let mut point = vec![4];
    for axis in ["x", "y"] {
        point.extend(
            head["jwk"][axis]
                .as_str()
                .and_then(decode)
                .unwrap_or_default(),
        );
    }
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED;
    let key = ring::signature::UnparsedPublicKey::new(algorithm, point);
    let input = format!("{header}.{payload}");
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    key.verify(input.as_bytes(), &signature).is_ok()
        && head["typ"] == "dpop+jwt"
        && claims["htm"] == "POST"
        && claims["htu"] == url
        && claims["iat"]
            .as_u64()
            .is_some_and(|iat| iat.abs_diff(seconds) < 300)
}
