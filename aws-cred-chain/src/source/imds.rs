//! The EC2 instance metadata service, version 2, and version 1 if that is allowed.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::json;
use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::settings::budget::within;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::source::call::{Call, request};
use crate::source::text::text;
use crate::trace::Origin;
use crate::world::{Context, Progress};

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// Why the metadata service gave no credentials, although nothing is misconfigured.
#[derive(Debug)]
pub(crate) enum Absent {
    Disabled(Origin),
    Unanswered(Error),
    /// It gave no token in time, and version 1 did not answer either.
    NoToken(String),
    NoRole,
}

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disabled(origin) => write!(f, "disabled by {origin}"),
            Self::Unanswered(error) => f.write_str(&error.report()),
            Self::NoToken(why) => write!(
                f,
                "{why}; in a container the hop limit of the instance's metadata options must be 2 or more"
            ),
            Self::NoRole => f.write_str("the instance has no role"),
        }
    }
}

/// Returns the base URL of the metadata service: by option, variables and the selected profile.
///
/// # Errors
///
/// [`Error::Invalid`] for an endpoint that is no URL and a mode that is neither IPv4 nor IPv6.
pub async fn endpoint(context: &Context, options: &Options) -> Result<String, Error> {
    base_url(&mut Run::new(context, options)).await
}

async fn base_url(run: &mut Run<'_>) -> Result<String, Error> {
    let key = "ec2_metadata_service_endpoint";
    let endpoint = match &run.options.imds_endpoint {
        Some(url) => Some((url.clone(), Origin::Option("imds_endpoint"))),
        None => run.setting("AWS_EC2_METADATA_SERVICE_ENDPOINT", key).await?,
    };
    if let Some((url, origin)) = endpoint {
        let valid = url.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
        });
        if !valid {
            return Err(Error::invalid(format!("{key} `{url}` is not a URL"), origin));
        }
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let key = "ec2_metadata_service_endpoint_mode";
    let mode = match &run.options.imds_endpoint_mode {
        Some(mode) => Some((mode.clone(), Origin::Option("imds_endpoint_mode"))),
        None => run.setting("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", key).await?,
    };
    match mode {
        None => Ok("http://169.254.169.254".to_owned()),
        Some((mode, _)) if mode.eq_ignore_ascii_case("ipv4") => {
            Ok("http://169.254.169.254".to_owned())
        }
        Some((mode, _)) if mode.eq_ignore_ascii_case("ipv6") => {
            Ok("http://[fd00:ec2::254]".to_owned())
        }
        Some((mode, origin)) => {
            let problem = format!("`{mode}` is not a valid endpoint mode (IPv4 or IPv6)");
            Err(Error::invalid(problem, origin))
        }
    }
}

/// The state after the request for a token: how later requests reach the service.
struct Session {
    base: String,
    token: Token,
    timeout: Duration,
    attempts_max: u32,
}

/// The token of later requests, or why they have none.
enum Token {
    /// A token: version 2.
    Given(String),
    /// The request for a token was refused, for this reason: version 1.
    Refused(String),
    /// The answer to the request for a token got lost: version 1.
    Lost,
}

/// Loads the credentials of the instance's role.
pub(crate) async fn load(run: &mut Run<'_>) -> Result<Result<Credentials, Absent>, Error> {
    let session = match open(run).await? {
        Ok(session) => session,
        Err(absent) => return Ok(Err(absent)),
    };
    let roles = match session.fetch(run, "metadata role", ROLES, is_document).await {
        Ok(Some(roles)) => roles,
        Ok(None) => return Ok(Err(Absent::NoRole)),
        Err(error) => return session.failed(error).map(Err),
    };
    let Some(role) = roles.lines().map(str::trim).find(|role| !role.is_empty()) else {
        return Ok(Err(Absent::NoRole));
    };
    if !role.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b)) {
        return Err(Error::unexpected("metadata role", "the answer is no role name"));
    }
    let what = "metadata credentials";
    let Some(body) = session.fetch(run, what, &format!("{ROLES}{role}"), is_json).await? else {
        return Ok(Err(Absent::NoRole));
    };
    let map = json::object(what, body.as_bytes())?;
    if let Some(code) = json::string(&map, "Code").filter(|code| *code != "Success") {
        return Err(Error::unexpected(what, format!("code {}", crate::source::text::short(code))));
    }
    let credentials = json::credentials(what, &map, "Token", Source::InstanceMetadata)?;
    if credentials.expires_at.is_some_and(|at| at <= run.context.clock.now()) {
        // AWS's guidance for clients: use expired credentials while the service cannot renew them.
        run.trace.note(what, "the service gives credentials beyond their expiry; using them");
    }
    Ok(Ok(credentials))
}

/// Requests the region of the instance.
pub(crate) async fn region(run: &mut Run<'_>) -> Result<Option<String>, Error> {
    match open(run).await? {
        Err(_) => Ok(None),
        Ok(session) => {
            let path = "/latest/meta-data/placement/region";
            let region = session.fetch(run, "metadata region", path, is_document).await?;
            Ok(region.map(|region| region.trim().to_owned()))
        }
    }
}

/// Returns the setting that disables the metadata service, if there is one.
pub(crate) fn disabled(context: &Context) -> Result<Option<Origin>, Error> {
    const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
    let value = context.var(DISABLED)?;
    let disabled = value.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    Ok(disabled.then(|| Origin::Variable(DISABLED.into())))
}

/// Requests a token. If none is given, version 1 of the service is used, unless a setting forbids
/// it. Services of other vendors have no tokens. In a container the answer may get lost, because
/// its hop limit is one by default.
async fn open(run: &mut Run<'_>) -> Result<Result<Session, Absent>, Error> {
    if let Some(origin) = disabled(run.context)? {
        return Ok(Err(Absent::Disabled(origin)));
    }
    let base = base_url(run).await?;
    let v1_disabled = run.flag("AWS_EC2_METADATA_V1_DISABLED", "ec2_metadata_v1_disabled").await?;
    let timeout = number(run, "AWS_METADATA_SERVICE_TIMEOUT", "metadata_service_timeout", 1, 60);
    let timeout = Duration::from_secs(timeout.await?);
    let attempts =
        number(run, "AWS_METADATA_SERVICE_NUM_ATTEMPTS", "metadata_service_num_attempts", 1, 10);
    let attempts_max = u32::try_from(attempts.await?).unwrap_or(1);
    let mut session = Session { base, token: Token::Lost, timeout, attempts_max };
    let what = "metadata token";
    let call = session.call(run, what);
    let progress = Progress::default();
    let context = run.context;
    let url = format!("{}/latest/api/token", session.base);
    let send = call.send(run, || {
        let mut request = request("PUT", &url, &[(TTL, "21600")], Bytes::new())?;
        request.extensions_mut().insert(progress.clone());
        Ok(request)
    });
    let probe = version_1(context, format!("{}{ROLES}", session.base), timeout, v1_disabled);
    let (answer, version_1) = with_probe(send, probe).await;
    session.token = match answer {
        Ok(response) => match response.status().as_u16() {
            200 => Token::Given(text(&response).trim().to_owned()),
            403 if is_of_the_service(&response) => {
                let problem = "request forbidden: IMDS is disabled or this host may not use it";
                return Err(Error::unexpected(what, problem));
            }
            status => Token::Refused(format!("no token: HTTP {status}")),
        },
        Err(error)
            if error.is_time_out() && (version_1 || v1_disabled && !progress.is_connecting()) =>
        {
            run.trace.note(what, error.report());
            Token::Lost
        }
        // The connection is accepted but never answered.
        Err(error) if error.is_time_out() && !progress.is_connecting() => {
            return Ok(Err(Absent::NoToken(error.report())));
        }
        // Nothing accepts the connection.
        Err(error) => return Ok(Err(Absent::Unanswered(error))),
    };
    let why = match &session.token {
        Token::Given(_) => return Ok(Ok(session)),
        Token::Refused(why) => why.clone(),
        Token::Lost => format!("no token in {} ms", timeout.as_millis()),
    };
    if v1_disabled {
        let why = format!("{why}, and version 1 of the service is disabled");
        return session.failed(Error::unexpected(what, why)).map(Err);
    }
    run.trace.note(what, format!("{why}; using version 1 of the service"));
    Ok(Ok(session))
}

/// Waits half of `timeout`, then asks version 1 of the service. Returns whether it answers in the
/// other half. So a lost token costs no second timeout.
async fn version_1(context: &Context, url: String, timeout: Duration, disabled: bool) -> bool {
    if disabled {
        return false;
    }
    let half = timeout / 2;
    context.clock.sleep(half).await;
    let Ok(request) = request("GET", &url, &[], Bytes::new()) else {
        return false;
    };
    let answer = within(&*context.clock, half, context.http.send(request)).await;
    matches!(answer, Some(Ok(_)))
}

/// Completes with the output of `main`, and polls `probe` meanwhile. Also returns what `probe`
/// found.
async fn with_probe<T>(
    main: impl Future<Output = T>,
    probe: impl Future<Output = bool>,
) -> (T, bool) {
    let (mut main, mut probe) = (std::pin::pin!(main), std::pin::pin!(probe));
    let mut found = None;
    std::future::poll_fn(move |cx| {
        if found.is_none()
            && let Poll::Ready(answer) = probe.as_mut().poll(cx)
        {
            found = Some(answer);
        }
        main.as_mut().poll(cx).map(|value| (value, found.unwrap_or(false)))
    })
    .await
}

/// Returns whether a refusal comes from EC2 itself, whose errors are XML documents. The service is
/// then disabled, including version 1. Other refusals come from proxies, behind which version 1 may
/// work. Recordings of EC2's answers have no headers, so an answer without headers counts as EC2's.
fn is_of_the_service(response: &http::Response<Bytes>) -> bool {
    if response.headers().is_empty() {
        return true;
    }
    let kind = response.headers().get(http::header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/xml"))
}

fn is_document(response: &http::Response<Bytes>) -> bool {
    !response.body().is_empty()
}

fn is_json(response: &http::Response<Bytes>) -> bool {
    serde_json::from_slice::<serde_json::Value>(response.body()).is_ok()
}

async fn number(
    run: &mut Run<'_>,
    variable: &'static str,
    key: &str,
    default: u64,
    max: u64,
) -> Result<u64, Error> {
    match run.setting(variable, key).await? {
        None => Ok(default),
        Some((text, origin)) => match text.trim().parse::<u64>() {
            Ok(value) if (1..=max).contains(&value) => Ok(value),
            _ => Err(Error::invalid(format!("{key} is not a number from 1 to {max}"), origin)),
        },
    }
}

impl Session {
    fn call(&self, run: &Run<'_>, name: &'static str) -> Call {
        let mut call = Call::new(name, run);
        call.attempt_timeout = self.timeout;
        call.unanswered_max = self.attempts_max;
        call
    }

    /// Returns a document, or `None` if there is none. If `is_whole` rejects a response, it is
    /// requested again.
    async fn fetch(
        &self,
        run: &mut Run<'_>,
        name: &'static str,
        path: &str,
        is_whole: fn(&http::Response<Bytes>) -> bool,
    ) -> Result<Option<String>, Error> {
        let url = format!("{}{path}", self.base);
        let mut headers = Vec::new();
        if let Token::Given(token) = &self.token {
            headers.push((TOKEN, token.as_str()));
        }
        let mut left = self.attempts_max;
        loop {
            let call = self.call(run, name);
            let response = call.send(run, || request("GET", &url, &headers, Bytes::new())).await?;
            left -= 1;
            match response.status().as_u16() {
                200 if left > 0 && !is_whole(&response) => {}
                401 if left > 0 => {}
                200 => return Ok(Some(text(&response))),
                404 => return Ok(None),
                status => return Err(Error::unexpected(name, format!("HTTP {status}"))),
            }
        }
    }

    /// Classifies a failure. If the token was lost, the failure means that this host cannot use the
    /// service. Otherwise it is an error.
    fn failed(&self, error: Error) -> Result<Absent, Error> {
        match &self.token {
            Token::Lost => Ok(Absent::NoToken(error.report())),
            Token::Refused(why) => Err(error.with_hint(why.clone())),
            Token::Given(_) => Err(error),
        }
    }
}
