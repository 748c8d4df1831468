//! Logins to IAM Identity Center, by a device code (RFC 8628) and by a browser (RFC 6749, PKCE).
//!
//! As `aws sso login` does, a login registers a client and keeps its registration. The token is
//! written to `~/.aws/sso/cache`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::pkce::Proof;
use super::{ListenForRedirect, LoginPage, LoginPrompt, REDIRECT_PATH, code_of_browser, show};
use crate::cache::cli as cli_cache;
use crate::credentials::Secret;
use crate::error::Error;
use crate::files::plan;
use crate::settings::endpoint;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::sign::percent_encode;
use crate::source::call::{Call, request};
use crate::source::json as answer;
use crate::source::refusal::Refusal;
use crate::source::sso::{self, Token};
use crate::timestamp;
use crate::trace::Origin;
use crate::world::Context;

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const SCOPE: &str = "sso:account:access";
/// The longest time for which a device's token is polled for.
const DEVICE_LIFE_MAX: Duration = Duration::from_secs(3600);
/// A registration that expires within this time is not used.
const REGISTRATION_EARLY: Duration = Duration::from_secs(15 * 60);
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A login to IAM Identity Center.
#[derive(Clone, Debug)]
pub struct SsoLogin {
    session: Option<String>,
    start_url: String,
    region: String,
    scopes: Vec<String>,
    context: Context,
    options: Options,
}

impl SsoLogin {
    /// Returns a login to the portal `start_url`, whose directory is in `region`.
    pub fn new(
        context: Context,
        options: Options,
        start_url: impl Into<String>,
        region: impl Into<String>,
    ) -> Self {
        let (start_url, region) = (start_url.into(), region.into());
        Self { session: None, start_url, region, scopes: Vec::new(), context, options }
    }

    /// Returns the login that the selected profile of the shared files needs.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the profile does not exist, or its settings of IAM Identity Center are
    /// missing or wrong.
    pub async fn of_profile(context: Context, options: Options) -> Result<Self, Error> {
        let found = {
            let mut run = Run::new(&context, &options);
            let reading = run.load().await?;
            let name = reading.location.profile.clone();
            let profile = run.profile();
            let plan = match profile {
                Some(profile) => plan::sso(run.profiles(), profile, &name)?,
                None => None,
            };
            let Some(plan) = plan else {
                let problem = format!("profile `{name}` does not use IAM Identity Center");
                return Err(Error::invalid(problem, Origin::Option("profile")));
            };
            let section = plan.session.as_ref().and_then(|it| run.profiles().sso_sessions.get(it));
            let scopes = section.and_then(|section| section.value("sso_registration_scopes"));
            let scopes: Vec<String> = scopes
                .unwrap_or_default()
                .split(',')
                .map(|scope| scope.trim().to_owned())
                .filter(|scope| !scope.is_empty())
                .collect();
            (plan, scopes)
        };
        let (plan, scopes) = found;
        let mut login = Self::new(context, options, plan.start_url, plan.region);
        (login.session, login.scopes) = (plan.session, scopes);
        Ok(login)
    }

    /// Names the `[sso-session]` section. The cache file of the token is named after it; without a
    /// session, after the start URL.
    #[must_use]
    pub fn with_session(mut self, name: impl Into<String>) -> Self {
        self.session = Some(name.into());
        self
    }

    /// Adds a scope to request (`sso_registration_scopes`).
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// Logs in with a code that a person enters on any device.
    ///
    /// Polls the service at the interval that it names. Each time the service asks to slow down,
    /// the interval grows by five seconds (RFC 8628). Polling stops when the code expires.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if the code expires first. [`Error::Denied`] if the person or the
    /// service refuses. [`Error::Failed`] if the page cannot be shown or the token cannot be
    /// written.
    pub async fn by_device(&self, prompt: &dyn LoginPrompt) -> Result<Token, Error> {
        let mut run = Run::new(&self.context, &self.options);
        let base = endpoint::of(&mut run, "sso_oidc", Some(&self.region)).await?.url;
        let registration = self.registration(&mut run, &base, None).await?;
        let what = "SSO-OIDC StartDeviceAuthorization";
        let body = json!({
            "clientId": registration.id, "clientSecret": registration.secret.expose(),
            "startUrl": self.start_url,
        });
        let started = post(&mut run, what, &format!("{base}/device_authorization"), &body).await?;
        let started = started
            .map_err(|refusal| refusal.error("SSO-OIDC", "StartDeviceAuthorization", None))?;
        let member = |key| answer::required(what, &started, key);
        let seconds = |key, default| started.get(key).and_then(Value::as_u64).unwrap_or(default);
        let mut interval = Duration::from_secs(seconds("interval", 5).clamp(1, 60));
        let life = Duration::from_secs(seconds("expiresIn", 600)).min(DEVICE_LIFE_MAX);
        let page = LoginPage {
            url: member("verificationUri")?.to_owned(),
            user_code: Some(member("userCode")?.to_owned()),
            url_with_code: member("verificationUriComplete")?.to_owned(),
        };
        let grant = json!({
            "clientId": registration.id, "clientSecret": registration.secret.expose(),
            "grantType": DEVICE_GRANT, "deviceCode": member("deviceCode")?,
        });
        let clock = self.context.clock.clone();
        let until = clock.monotonic() + life;
        let expired = || Error::TimedOut { operation: "SSO login".to_owned(), budget: life };
        let mut shown = false;
        // The first poll precedes the page, because the client may have been authorized before.
        loop {
            let refusal = match create_token(&mut run, &base, &grant).await? {
                Ok(map) => return self.keep(&mut run, &registration, &map).await,
                Err(refusal) => refusal,
            };
            match refusal.code.as_str() {
                "AuthorizationPendingException" | "authorization_pending" => {}
                "SlowDownException" | "slow_down" => interval += Duration::from_secs(5),
                "ExpiredTokenException" | "expired_token" => return Err(expired()),
                _ => return Err(refusal.error("SSO-OIDC", "CreateToken", None)),
            }
            if !shown {
                show(prompt, &page).await?;
                shown = true;
            }
            if clock.monotonic() + interval >= until {
                return Err(expired());
            }
            clock.sleep(interval).await;
        }
    }

    /// Logs in with a browser on this machine.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if nobody logs in within [`Options::prompt_budget`]. [`Error::Denied`]
    /// if the service refuses. [`Error::Failed`] if the person refuses, the page cannot be shown,
    /// no port is free, or the token cannot be written.
    pub async fn by_browser(
        &self,
        prompt: &dyn LoginPrompt,
        listener: &dyn ListenForRedirect,
    ) -> Result<Token, Error> {
        let mut run = Run::new(&self.context, &self.options);
        let base = endpoint::of(&mut run, "sso_oidc", Some(&self.region)).await?.url;
        let redirect =
            listener.listen().map_err(|error| Error::failed("listening for the browser", error))?;
        let redirect_uri = format!("http://127.0.0.1:{}{REDIRECT_PATH}", redirect.port());
        // The service accepts any port of a redirect to loopback.
        let registered = format!("http://127.0.0.1{REDIRECT_PATH}");
        let registration = self.registration(&mut run, &base, Some(&registered)).await?;
        let proof = Proof::draw()?;
        let scopes = match self.scopes.is_empty() {
            true => SCOPE.to_owned(),
            false => self.scopes.join(" "),
        };
        let mut url = format!("{base}/authorize?response_type=code&code_challenge_method=S256");
        for (name, value) in [
            ("client_id", registration.id.as_str()),
            ("redirect_uri", &redirect_uri),
            ("state", proof.state.expose()),
            ("scopes", &scopes),
            ("code_challenge", &proof.challenge),
        ] {
            let _infallible = write!(url, "&{name}={}", percent_encode(value));
        }
        let page = LoginPage { url: url.clone(), user_code: None, url_with_code: url };
        let code = code_of_browser(&run, prompt, redirect, &page, &proof.state).await?;
        let grant = json!({
            "clientId": registration.id, "clientSecret": registration.secret.expose(),
            "grantType": "authorization_code", "redirectUri": redirect_uri,
            "code": code.expose(), "codeVerifier": proof.verifier.expose(),
        });
        match create_token(&mut run, &base, &grant).await? {
            Ok(map) => self.keep(&mut run, &registration, &map).await,
            Err(refusal) => Err(refusal.error("SSO-OIDC", "CreateToken", None)),
        }
    }

    /// Returns the kept registration of a client if it is still valid, else registers a client. A
    /// client for the browser is registered with a redirect.
    async fn registration(
        &self,
        run: &mut Run<'_>,
        base: &str,
        redirect: Option<&str>,
    ) -> Result<Registration, Error> {
        let path = self.registration_path()?;
        let now = self.context.clock.now();
        if let Ok(data) = self.context.files.read(&path, FILE_BYTES_MAX).await
            && let Ok(map) = answer::object("SSO registration", &data.bytes)
            && let Some(kept) = Registration::read(&map)
            && kept.expires_at > now + REGISTRATION_EARLY
            && kept.for_browser == redirect.is_some()
        {
            return Ok(kept);
        }
        let what = "SSO-OIDC RegisterClient";
        let name = match &self.session {
            Some(session) => session.clone(),
            None => {
                now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().to_string()
            }
        };
        let mut body =
            json!({ "clientName": format!("botocore-client-{name}"), "clientType": "public" });
        if !self.scopes.is_empty() {
            body["scopes"] = json!(self.scopes);
        }
        if let Some(redirect) = redirect {
            body["grantTypes"] = json!(["authorization_code", "refresh_token"]);
            body["redirectUris"] = json!([redirect]);
            body["issuerUrl"] = json!(self.start_url);
            if self.scopes.is_empty() {
                body["scopes"] = json!([SCOPE]);
            }
        }
        let registered = post(run, what, &format!("{base}/client/register"), &body)
            .await?
            .map_err(|refusal| refusal.error("SSO-OIDC", "RegisterClient", None))?;
        let ends = registered.get("clientSecretExpiresAt").and_then(Value::as_u64);
        let expires_at = ends
            .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
            .ok_or_else(|| Error::unexpected(what, "the answer has no clientSecretExpiresAt"))?;
        let registration = Registration {
            id: answer::required(what, &registered, "clientId")?.to_owned(),
            secret: answer::required(what, &registered, "clientSecret")?.into(),
            expires_at,
            for_browser: redirect.is_some(),
        };
        let mut file = json!({
            "clientId": registration.id, "clientSecret": registration.secret.expose(),
            "expiresAt": timestamp::iso(expires_at),
        });
        for key in ["scopes", "grantTypes"] {
            if let Some(value) = body.get(key) {
                file[key] = value.clone();
            }
        }
        self.write(&path, &file).await?;
        Ok(registration)
    }

    /// Writes the token to the AWS CLI's cache, where the AWS CLI and chains find it.
    async fn keep(
        &self,
        run: &mut Run<'_>,
        registration: &Registration,
        created: &Map<String, Value>,
    ) -> Result<Token, Error> {
        let what = "SSO-OIDC CreateToken";
        let access = answer::required(what, created, "accessToken")?;
        let seconds = created.get("expiresIn").and_then(Value::as_u64).unwrap_or(0);
        let life = Duration::from_secs(seconds.min(366 * 86_400));
        let expires_at = self.context.clock.now() + life;
        let mut file = json!({
            "startUrl": self.start_url, "region": self.region,
            "accessToken": access, "expiresAt": timestamp::iso(expires_at),
            "clientId": registration.id, "clientSecret": registration.secret.expose(),
            "registrationExpiresAt": timestamp::iso(registration.expires_at),
        });
        if let Some(refresh) = answer::string(created, "refreshToken") {
            file["refreshToken"] = refresh.into();
        }
        let key = self.session.as_ref().unwrap_or(&self.start_url);
        let path = sso::cache_file(run.context, key, Origin::Unknown)?;
        self.write(&path, &file).await?;
        Ok(Token { token: access.into(), expires_at: Some(expires_at) })
    }

    async fn write(&self, path: &std::path::Path, file: &Value) -> Result<(), Error> {
        let bytes = file.to_string().into_bytes();
        let written = self.context.cache_files.write_private(path, &bytes).await;
        written.map_err(|error| Error::failed(format!("writing {}", path.display()), error))
    }

    /// Returns the file in which the AWS CLI keeps the registration for this login.
    fn registration_path(&self) -> Result<PathBuf, Error> {
        let scopes = match self.scopes.is_empty() {
            true => Value::Null,
            false => json!(self.scopes),
        };
        let arguments = json!({
            "tool": "botocore", "startUrl": self.start_url, "region": self.region,
            "scopes": scopes, "session_name": self.session,
        });
        let mut python = String::new();
        cli_cache::dump(&arguments, &mut python);
        sso::cache_file(&self.context, &python, Origin::Unknown)
    }
}

/// A client that is registered at IAM Identity Center.
struct Registration {
    id: String,
    secret: Secret,
    expires_at: SystemTime,
    for_browser: bool,
}

impl Registration {
    fn read(map: &Map<String, Value>) -> Option<Self> {
        let grants = map.get("grantTypes").and_then(Value::as_array);
        Some(Self {
            id: answer::string(map, "clientId")?.to_owned(),
            secret: answer::string(map, "clientSecret")?.into(),
            expires_at: timestamp::parse(answer::string(map, "expiresAt")?)?,
            for_browser: grants.is_some_and(|it| it.iter().any(|it| it == "authorization_code")),
        })
    }
}

async fn create_token(
    run: &mut Run<'_>,
    base: &str,
    grant: &Value,
) -> Result<Result<Map<String, Value>, Refusal>, Error> {
    post(run, "SSO-OIDC CreateToken", &format!("{base}/token"), grant).await
}

/// Returns the object in the answer, or the service's refusal.
async fn post(
    run: &mut Run<'_>,
    what: &'static str,
    url: &str,
    body: &Value,
) -> Result<Result<Map<String, Value>, Refusal>, Error> {
    let call = Call::new(what, run);
    let body = Bytes::from(body.to_string());
    let headers = [("content-type", "application/json")];
    let response = call.send(run, || request("POST", url, &headers, body.clone())).await?;
    if !response.status().is_success() {
        return Ok(Err(Refusal::of(&response)));
    }
    answer::object(what, response.body()).map(Ok)
}
