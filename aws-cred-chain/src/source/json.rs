//! Reads credentials from the JSON of services and programs.

use serde_json::{Map, Value};

use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::timestamp;

/// Parses an object. The error has only the place of the fault, since the parser's message may
/// quote the input.
pub(crate) fn object(what: &str, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::unexpected(what, "the answer is JSON but no object")),
        Err(error) => {
            let place = format!("line {} column {}", error.line(), error.column());
            Err(Error::unexpected(what, format!("the answer is not JSON ({place})")))
        }
    }
}

/// Returns a string member, if it is there and not empty.
pub(crate) fn string<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key)?.as_str().filter(|text| !text.is_empty())
}

/// Returns a string member, or an error that names it if it is missing or empty.
pub(crate) fn required<'a>(
    what: &str,
    map: &'a Map<String, Value>,
    key: &str,
) -> Result<&'a str, Error> {
    string(map, key).ok_or_else(|| Error::unexpected(what, format!("the answer has no {key}")))
}

/// Returns an error if the credentials have expired.
pub(crate) fn not_expired(
    what: &str,
    credentials: &Credentials,
    now: std::time::SystemTime,
) -> Result<(), Error> {
    match credentials.expires_at.filter(|at| *at <= now) {
        Some(at) => {
            let ended = timestamp::iso(at);
            Err(Error::unexpected(what, format!("the credentials ended at {ended}")))
        }
        None => Ok(()),
    }
}

/// Reads `AccessKeyId`, `SecretAccessKey`, the token under `token_key`, `AccountId` and
/// `Expiration`.
pub(crate) fn credentials(
    what: &str,
    map: &Map<String, Value>,
    token_key: &str,
    source: Source,
) -> Result<Credentials, Error> {
    let id = required(what, map, "AccessKeyId")?;
    let secret = required(what, map, "SecretAccessKey")?;
    let mut credentials = Credentials::new(id, secret).with_source(source);
    credentials.session_token = string(map, token_key).map(Into::into);
    credentials.account_id = string(map, "AccountId").map(str::to_owned);
    credentials.expires_at = match map.get("Expiration") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let time = value.as_str().and_then(timestamp::parse);
            Some(time.ok_or_else(|| Error::unexpected(what, "Expiration is not an ISO 8601 time"))?)
        }
    };
    Ok(credentials)
}
