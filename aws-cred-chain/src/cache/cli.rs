//! The AWS CLI's credential cache, `~/.aws/cli/cache`, read and written in the AWS CLI's format.
//!
//! A file's name is the SHA-1 of the call's arguments, serialised as Python's `json.dumps` does.
//! Its content is the whole response and its mode is 0600. botocore treats credentials that expire
//! within 15 minutes as expired.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::files::plan::{Role, SsoPlan};
use crate::settings::budget::within;
use crate::settings::options::CliCache;
use crate::settings::run::Run;
use crate::source::xml;
use crate::timestamp;
use crate::trace::Origin;
use crate::world::CacheLock;

const BYTES_MAX: u64 = 1 << 20;
const EARLY: Duration = Duration::from_secs(15 * 60);

/// Returns the cache file of `role`, or `None` if [`CliCache`] excludes this role from the cache.
pub(crate) fn path(run: &Run<'_>, role: &Role) -> Option<PathBuf> {
    let wanted = match run.options.cli_cache {
        CliCache::Off => false,
        CliCache::Mfa => role.mfa_serial.is_some(),
        CliCache::Roles => true,
    };
    wanted.then(|| file(run, &key(role)))?
}

/// Returns the cache file of an SSO role's credentials, or `None` if this run does not use the
/// cache.
pub(crate) fn sso_path(run: &Run<'_>, plan: &SsoPlan) -> Option<PathBuf> {
    match run.options.cli_cache {
        CliCache::Off => None,
        CliCache::Mfa | CliCache::Roles => file(run, &sso_key(plan)?),
    }
}

fn file(run: &Run<'_>, key: &str) -> Option<PathBuf> {
    Some(run.context.home()?.join(".aws/cli/cache").join(format!("{key}.json")))
}

/// Returns the name, without extension, that the AWS CLI gives to the cache file of an SSO role.
/// Returns `None` if the plan names no role.
#[must_use]
pub fn sso_key(plan: &SsoPlan) -> Option<String> {
    let (account, role) = plan.account_and_role.as_ref()?;
    let (name, value) = match &plan.session {
        Some(session) => ("sessionName", session),
        None => ("startUrl", &plan.start_url),
    };
    let mut python = String::new();
    for (key, value) in [("accountId", account), ("roleName", role), (name, value)] {
        // The AWS CLI uses compact separators here, but not for STS.
        python.push(if python.is_empty() { '{' } else { ',' });
        quote(key, &mut python);
        python.push(':');
        quote(value, &mut python);
    }
    python.push('}');
    Some(sha1_smol::Sha1::from(python).hexdigest())
}

/// Returns the name, without extension, that the AWS CLI gives to the cache file of `role`.
#[must_use]
pub fn key(role: &Role) -> String {
    let mut arguments = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            arguments.insert(name.to_owned(), value);
        }
    };
    let text = |value: &Option<String>| value.clone().map(Value::String);
    add("DurationSeconds", role.duration.map(|duration| Value::from(duration.as_secs())));
    add("ExternalId", text(&role.external_id));
    add("Policy", role.policy.as_deref().and_then(|policy| serde_json::from_str(policy).ok()));
    if !role.policy_arns.is_empty() {
        let arns = role.policy_arns.iter().map(|arn| json!({ "arn": arn })).collect();
        add("PolicyArns", Some(Value::Array(arns)));
    }
    if !role.tags.is_empty() {
        let tags = role.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value }));
        add("Tags", Some(tags.collect()));
    }
    if !role.transitive_tag_keys.is_empty() {
        let keys = role.transitive_tag_keys.iter().map(|key| Value::from(key.as_str()));
        add("TransitiveTagKeys", Some(keys.collect()));
    }
    add("SourceIdentity", text(&role.source_identity));
    add("RoleArn", Some(Value::String(role.role_arn.clone())));
    add("RoleSessionName", text(&role.session_name));
    add("SerialNumber", text(&role.mfa_serial));
    let mut python = String::new();
    dump(&Value::Object(arguments), &mut python);
    sha1_smol::Sha1::from(python).hexdigest()
}

/// Writes JSON as Python's `json.dumps(value, sort_keys=True)` does.
pub(crate) fn dump(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => quote(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                dump(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(key, _)| key.as_str());
            for (index, (key, value)) in members.into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                quote(key, out);
                out.push_str(": ");
                dump(value, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn quote(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _infallible = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// The result of a look in the cache by [`find`].
pub(crate) enum Found {
    /// A cached session that is still valid.
    Session(Credentials),
    /// No valid session. The lock is held until the caller has written a new one.
    Nothing(CacheLock),
}

/// Reads a cached session. If there is none, locks the file, so that other processes wait until
/// this one has written a new session.
///
/// # Errors
///
/// As [`read`].
pub(crate) async fn find(
    run: &mut Run<'_>,
    path: Option<&Path>,
    source: Source,
) -> Result<Found, Error> {
    let Some(path) = path else {
        return Ok(Found::Nothing(CacheLock::default()));
    };
    if let Some(credentials) = read(run, path, source).await? {
        return Ok(Found::Session(credentials));
    }
    if !run.options.cli_cache_lock {
        return Ok(Found::Nothing(CacheLock::default()));
    }
    // The holder of the lock may be waiting for a person to enter an MFA code.
    let (context, limit) = (run.context, run.options.prompt_limit());
    let locking = within(&*context.clock, limit, context.cache_files.lock(path));
    let lock = match run.waiting().of(&*context.clock, locking).await {
        Some(Ok(lock)) => lock,
        Some(Err(error)) => {
            run.trace.note("cache of the AWS CLI", format!("not locked: {error}"));
            CacheLock::default()
        }
        None => CacheLock::default(),
    };
    match read(run, path, source).await? {
        Some(credentials) => Ok(Found::Session(credentials)),
        None => Ok(Found::Nothing(lock)),
    }
}

/// Returns the cached credentials if they are valid for 15 minutes or more.
///
/// A file that cannot be parsed counts as absent, as in the AWS CLI. A file that other users may
/// read is an error.
async fn read(
    run: &mut Run<'_>,
    path: &Path,
    source: Source,
) -> Result<Option<Credentials>, Error> {
    let data = match run.context.files.read(path, BYTES_MAX).await {
        Ok(data) => data,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            run.trace.note("cache of the AWS CLI", format!("not read: {error}"));
            return Ok(None);
        }
    };
    if data.others_may_read {
        let origin = Origin::File { path: path.into(), line: 1 };
        let hint = format!("run: chmod 600 {}", path.display());
        return Err(
            Error::invalid("cached credentials are readable by others", origin).with_hint(hint)
        );
    }
    let Some(credentials) = parse(&data.bytes) else {
        run.trace.note("cache of the AWS CLI", format!("not understood: {}", path.display()));
        return Ok(None);
    };
    let now = run.context.clock.now();
    let valid = credentials.expires_at.is_some_and(|at| at >= now + EARLY);
    if !valid {
        return Ok(None);
    }
    run.trace.note("cache of the AWS CLI", format!("used {}", path.display()));
    Ok(Some(credentials.with_source(source)))
}

/// Parses the content of a cache file. Returns `None` if a member is missing or malformed.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Credentials> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let part = value.get("Credentials")?;
    let member = |key: &str| part.get(key)?.as_str().filter(|text| !text.is_empty());
    let mut credentials = Credentials::new(member("AccessKeyId")?, member("SecretAccessKey")?)
        .with_session_token(member("SessionToken")?)
        .with_expires_at(timestamp::parse(member("Expiration")?)?)
        .with_source(Source::AssumeRole);
    credentials.account_id = member("AccountId").map(str::to_owned);
    Some(credentials)
}

/// Writes an answer of STS to the cache as the AWS CLI does. A failure only adds a note to the
/// trace.
pub(crate) async fn write(run: &mut Run<'_>, path: &Path, credentials: &Credentials, answer: &str) {
    let text = |name: &str| xml::text(answer, name);
    let content = json!({
        "Credentials": members(credentials),
        "AssumedRoleUser": { "AssumedRoleId": text("AssumedRoleId"), "Arn": text("Arn") },
        "ResponseMetadata": { "RequestId": text("RequestId"), "HTTPStatusCode": 200 },
    });
    put(run, path, &content).await;
}

/// Writes the credentials of an SSO role as the AWS CLI does. A failure only adds a note to the
/// trace.
pub(crate) async fn write_sso(run: &mut Run<'_>, path: &Path, credentials: &Credentials) {
    let content = json!({ "ProviderType": "sso", "Credentials": members(credentials) });
    put(run, path, &content).await;
}

fn members(credentials: &Credentials) -> Value {
    let mut members = json!({
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.expose(),
        "SessionToken": credentials.session_token.as_ref().map(|token| token.expose()),
        "Expiration": credentials.expires_at.map(timestamp::iso),
    });
    if let Some(account) = &credentials.account_id {
        members["AccountId"] = Value::String(account.clone());
    }
    members
}

async fn put(run: &mut Run<'_>, path: &Path, content: &Value) {
    let bytes = content.to_string().into_bytes();
    if let Err(error) = run.context.cache_files.write_private(path, &bytes).await {
        crate::log::note("cache of the AWS CLI not written", &error);
        run.trace.note("cache of the AWS CLI", format!("not written: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_files_of_sso_roles() {
        let mut plan = SsoPlan {
            profile: "p".to_owned(),
            session: Some("s".to_owned()),
            start_url: "https://x".to_owned(),
            region: "r".to_owned(),
            account_and_role: Some(("1".to_owned(), "R".to_owned())),
            origin: Origin::Unknown,
        };
        let sha = |text: &str| Some(sha1_smol::Sha1::from(text).hexdigest());
        let by_session = r#"{"accountId":"1","roleName":"R","sessionName":"s"}"#;
        assert_eq!(sso_key(&plan), sha(by_session));
        plan.session = None;
        let by_url = r#"{"accountId":"1","roleName":"R","startUrl":"https://x"}"#;
        assert_eq!(sso_key(&plan), sha(by_url));
        plan.account_and_role = None;
        assert_eq!(sso_key(&plan), None);
    }

    #[test]
    fn quotes_as_python_does() {
        let mut out = String::new();
        dump(&json!({"b": "é😀\u{1}\"", "a": [1, true, null, {}]}), &mut out);
        assert_eq!(
            out,
            "{\"a\": [1, true, null, {}], \"b\": \"\\u00e9\\ud83d\\ude00\\u0001\\\"\"}"
        );
    }
}
