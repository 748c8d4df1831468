//! `login_session`: what `aws login` left in its cache.
//!
//! Renewing the session needs a signature by the key in the cache file (DPoP, RFC 9449); this crate
//! does not renew: when the session ends it says which command to run.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::json;
use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::run::Run;
use crate::sign::hex;
use crate::timestamp;
use crate::trace::Origin;

const BYTES_MAX: u64 = 1 << 20;

/// Returns the cached session's keys.
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
    let data = run
        .context
        .files
        .read(&path, BYTES_MAX)
        .await
        .map_err(|error| {
            required(format!(
                "cannot read the login session {}: {error}",
                path.display()
            ))
        })?;
    let credentials = parse(&data.bytes).map_err(|error| required(error.report()))?;
    if credentials
        .expires_at
        .is_some_and(|at| at <= run.context.clock.now())
    {
        return Err(required("the login session has expired".to_owned()));
    }
    Ok(credentials)
}

fn path(run: &Run<'_>, session: &str, origin: &Origin) -> Result<PathBuf, Error> {
    let folder = match run.context.var("AWS_LOGIN_CACHE_DIRECTORY") {
        Some(folder) => run.context.expand(&folder),
        None => {
            let home = run.context.home().ok_or_else(|| {
                Error::invalid("no home folder, so no login session", origin.clone())
            })?;
            Path::new(&home).join(".aws/login/cache")
        }
    };
    Ok(folder.join(format!("{}.json", cache_key(session))))
}

/// Returns the name, without extension, that the AWS CLI gives to the cache file of `login_session`.
#[must_use]
pub fn cache_key(session: &str) -> String {
    hex(&hmac_sha256::Hash::hash(session.trim().as_bytes()))
}

fn parse(bytes: &[u8]) -> Result<Credentials, Error> {
    let what = "login session";
    let map = json::object(what, bytes)?;
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
