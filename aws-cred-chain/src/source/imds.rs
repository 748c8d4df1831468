//! The EC2 instance metadata service, version 2, and 1 where it is allowed.

use std::time::Duration;

use bytes::Bytes;

use super::json;
use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::source::call::{Call, request, text};
use crate::trace::Origin;
use crate::world::Context;

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// Why the metadata service gave nothing although nothing is wrong.
#[derive(Debug)]
pub(crate) enum Absent {
    Disabled(Origin),
    Unanswered(Error),
    NoRole,
}

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disabled(origin) => write!(f, "disabled by {origin}"),
            Self::Unanswered(error) => f.write_str(&error.report()),
            Self::NoRole => f.write_str("the instance has no role"),
        }
    }
}

/// Returns the metadata service's base URL by option, variables and the selected profile.
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

/// A metadata service that has answered.
struct Session {
    base: String,
    token: Option<String>,
    timeout: Duration,
    unanswered_max: u32,
}

/// Loads the instance role's credentials.
pub(crate) async fn load(run: &mut Run<'_>) -> Result<Result<Credentials, Absent>, Error> {
    let session = match open(run).await? {
        Ok(session) => session,
        Err(absent) => return Ok(Err(absent)),
    };
    let Some(roles) = session.fetch(run, "metadata role", ROLES).await? else {
        return Ok(Err(Absent::NoRole));
    };
    let Some(role) = roles.lines().map(str::trim).find(|role| !role.is_empty()) else {
        return Ok(Err(Absent::NoRole));
    };
    if !role.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b)) {
        return Err(Error::unexpected("metadata role", "the answer is no role name"));
    }
    let what = "metadata credentials";
    let Some(body) = session.fetch(run, what, &format!("{ROLES}{role}")).await? else {
        return Ok(Err(Absent::NoRole));
    };
    let map = json::object(what, body.as_bytes())?;
    if let Some(code) = json::string(&map, "Code").filter(|code| *code != "Success") {
        return Err(Error::unexpected(what, format!("code {}", crate::source::call::short(code))));
    }
    let credentials = json::credentials(what, &map, "Token", Source::InstanceMetadata)?;
    if credentials.expires_at.is_some_and(|at| at <= run.context.clock.now()) {
        // Amazon's guidance for clients of the service: use expired ones while it cannot renew them.
        run.trace.note(what, "the service gives credentials beyond their expiry; using them");
    }
    Ok(Ok(credentials))
}

/// Asks for the instance's region.
pub(crate) async fn region(run: &mut Run<'_>) -> Result<Option<String>, Error> {
    match open(run).await? {
        Err(_) => Ok(None),
        Ok(session) => {
            let path = "/latest/meta-data/placement/region";
            Ok(session.fetch(run, "metadata region", path).await?.map(|r| r.trim().to_owned()))
        }
    }
}

/// Fetches a token.
async fn open(run: &mut Run<'_>) -> Result<Result<Session, Absent>, Error> {
    const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
    if run.context.var(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(Err(Absent::Disabled(Origin::Variable(DISABLED.into()))));
    }
    let base = base_url(run).await?;
    let v1_disabled = run.flag("AWS_EC2_METADATA_V1_DISABLED", "ec2_metadata_v1_disabled").await?;
    let timeout = number(run, "AWS_METADATA_SERVICE_TIMEOUT", "metadata_service_timeout", 1, 60);
    let timeout = Duration::from_secs(timeout.await?);
    let attempts =
        number(run, "AWS_METADATA_SERVICE_NUM_ATTEMPTS", "metadata_service_num_attempts", 1, 10);
    let mut session = Session {
        base,
        token: None,
        timeout,
        unanswered_max: u32::try_from(attempts.await?).unwrap_or(1),
    };
    let call = session.call(run, "metadata token");
    let url = format!("{}/latest/api/token", session.base);
    let send = call.send(run, || request("PUT", &url, &[(TTL, "21600")], Bytes::new()));
    let response = match send.await {
        Ok(response) => response,
        Err(error) => return Ok(Err(Absent::Unanswered(error))),
    };
    match response.status().as_u16() {
        200 => session.token = Some(text(&response).trim().to_owned()),
        // An old service without tokens.
        404 | 405 if !v1_disabled => {
            run.trace.note("metadata token", "no tokens here; using version 1 of the service");
        }
        403 => {
            let problem = "request forbidden: IMDS is disabled or this host may not use it";
            return Err(Error::unexpected("metadata token", problem));
        }
        status => {
            return Err(Error::unexpected("metadata token", format!("HTTP {status}")));
        }
    }
    Ok(Ok(session))
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
        call.unanswered_max = self.unanswered_max;
        call
    }

    /// Returns a document; `None` where there is none.
    async fn fetch(
        &self,
        run: &mut Run<'_>,
        name: &'static str,
        path: &str,
    ) -> Result<Option<String>, Error> {
        let url = format!("{}{path}", self.base);
        let headers: Vec<(&str, &str)> = self.token.iter().map(|t| (TOKEN, t.as_str())).collect();
        let call = self.call(run, name);
        let response = call.send(run, || request("GET", &url, &headers, Bytes::new())).await?;
        match response.status().as_u16() {
            200 => Ok(Some(text(&response))),
            404 => Ok(None),
            status => Err(Error::unexpected(name, format!("HTTP {status}"))),
        }
    }
}
