//! `login_session`: the session that `aws login` wrote to its cache, renewed if possible.
//!
//! The request that renews it is signed with the key in the cache file (DPoP). This needs the
//! feature `login`. Without it, the error at the end of the session names the command to run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::json;
use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::settings::run::Run;
use crate::sign::hex;
use crate::timestamp;
use crate::trace::Origin;

const BYTES_MAX: u64 = 1 << 20;
/// How long before its expiry a session is renewed, as in botocore.
const RENEW_EARLY: Duration = Duration::from_secs(5 * 60);

/// Returns the credentials of the cached session.
pub(crate) async fn load(
    run: &mut Run<'_>,
    session: &str,
    profile: &str,
    origin: &Origin,
) -> Result<Credentials, Error> {
    let required = |problem: String| Error::LoginRequired {
        problem,
        command: format!("aws login --profile {profile}"),
    };
    let path = path(run, session, origin)?;
    let data = run.context.files.read(&path, BYTES_MAX).await.map_err(|error| {
        required(format!("cannot read the login session {}: {error}", path.display()))
    })?;
    let what = "login session";
    let cached = json::object(what, &data.bytes).map_err(|error| required(error.report()))?;
    let credentials = parse(&cached).map_err(|error| required(error.report()))?;
    let now = run.context.clock.now();
    let expires_at = credentials.expires_at.unwrap_or(now);
    if now + RENEW_EARLY < expires_at {
        return Ok(credentials);
    }
    match renew(run, &path, &cached).await {
        Ok(Some(renewed)) => Ok(renewed),
        Err(error) if now < expires_at => {
            run.trace.note(what, error.report());
            Ok(credentials)
        }
        Ok(None) if now < expires_at => Ok(credentials),
        Ok(None) => Err(required("the login session has expired".to_owned())),
        Err(error @ (Error::Failed { .. } | Error::TimedOut { .. })) => Err(error),
        Err(error) => Err(required(error.report())),
    }
}

/// Without the feature `login`, sessions are not renewed.
#[cfg(not(feature = "login"))]
async fn renew(
    _: &mut Run<'_>,
    _: &Path,
    _: &Map<String, Value>,
) -> Result<Option<Credentials>, Error> {
    Ok(None)
}

/// Renews the session. `None` if the cache file lacks what the renewal needs.
#[cfg(feature = "login")]
async fn renew(
    run: &mut Run<'_>,
    path: &Path,
    cached: &Map<String, Value>,
) -> Result<Option<Credentials>, Error> {
    use super::refusal::Refusal;
    use crate::source::call::{Call, request};
    let member = |key| json::string(cached, key);
    let (Some(client), Some(refresh), Some(pem)) =
        (member("clientId"), member("refreshToken"), member("dpopKey"))
    else {
        return Ok(None);
    };
    let endpoint = crate::settings::endpoint::of(run, "signin", member("signInRegion")).await?;
    let url = format!("{}/v1/token", endpoint.url);
    let call = Call::new("sign-in CreateOAuth2Token", run);
    let body = serde_json::json!({
        "clientId": client, "refreshToken": refresh, "grantType": "refresh_token",
    });
    let body = bytes::Bytes::from(body.to_string());
    let clock = run.context.clock.clone();
    let send = call.send(run, || {
        let proof = super::dpop::proof(pem, &url, clock.now())?;
        let headers = [("content-type", "application/json"), ("dpop", proof.as_str())];
        request("POST", &url, &headers, body.clone())
    });
    let response = send.await?;
    if !response.status().is_success() {
        return Err(Refusal::of(&response).error("sign-in", "CreateOAuth2Token", None));
    }
    let answer = json::object(call.name, response.body())?;
    let file = renewed(call.name, cached, &answer, clock.now())?;
    let credentials = parse(&file)?;
    let bytes = Value::Object(file).to_string().into_bytes();
    if let Err(error) = run.context.cache_files.write_private(path, &bytes).await {
        crate::log::note("renewed login session not written", &error);
        run.trace.note("login session", format!("renewed, but not written: {error}"));
    }
    Ok(Some(credentials))
}

/// Returns the content of the cache file with the new credentials.
#[cfg(feature = "login")]
fn renewed(
    what: &str,
    cached: &Map<String, Value>,
    answer: &Map<String, Value>,
    now: std::time::SystemTime,
) -> Result<Map<String, Value>, Error> {
    let Some(Value::Object(keys)) = answer.get("accessToken") else {
        return Err(Error::unexpected(what, "the answer has no accessToken"));
    };
    let life = answer.get("expiresIn").and_then(Value::as_u64).unwrap_or(0).min(86_400);
    let expires_at = timestamp::iso(now + Duration::from_secs(life));
    let account = cached.get("accessToken").and_then(|token| token.get("accountId"));
    let mut token = keys.clone();
    token.insert("accountId".to_owned(), account.cloned().unwrap_or_default());
    token.insert("expiresAt".to_owned(), expires_at.into());
    let mut file = cached.clone();
    file.insert("accessToken".to_owned(), Value::Object(token));
    if let Some(refresh) = json::string(answer, "refreshToken") {
        file.insert("refreshToken".to_owned(), refresh.into());
    }
    Ok(file)
}

pub(crate) fn path(run: &Run<'_>, session: &str, origin: &Origin) -> Result<PathBuf, Error> {
    let folder = match run.context.var("AWS_LOGIN_CACHE_DIRECTORY")? {
        Some(folder) => run.context.expand(&folder),
        None => {
            let home = run.context.home().ok_or_else(|| {
                Error::invalid("no home folder, so no login session", origin.clone())
            })?;
            home.join(".aws/login/cache")
        }
    };
    Ok(folder.join(format!("{}.json", cache_key(session))))
}

/// Returns the name, without extension, of the AWS CLI's cache file of `login_session`.
#[must_use]
pub fn cache_key(session: &str) -> String {
    hex(&hmac_sha256::Hash::hash(session.trim().as_bytes()))
}

pub(crate) fn parse(map: &Map<String, Value>) -> Result<Credentials, Error> {
    let what = "login session";
    let Some(Value::Object(keys)) = map.get("accessToken") else {
        return Err(Error::unexpected(what, "the file has no accessToken"));
    };
    let member = |key| json::required(what, keys, key);
    let expires_at = timestamp::parse(member("expiresAt")?)
        .ok_or_else(|| Error::unexpected(what, "expiresAt is not an ISO 8601 time"))?;
    let mut credentials = Credentials::new(member("accessKeyId")?, member("secretAccessKey")?)
        .with_session_token(member("sessionToken")?)
        .with_expires_at(expires_at)
        .with_source(Source::Login);
    credentials.account_id = json::string(keys, "accountId").map(str::to_owned);
    Ok(credentials)
}
