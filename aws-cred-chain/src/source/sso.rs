//! IAM Identity Center: the token of `aws sso login`, renewed if possible, and the credentials of a
//! role.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::json as answer;
use super::refusal::Refusal;
use crate::cache::cli as cli_cache;
use crate::credentials::{Credentials, Secret, Source};
use crate::error::Error;
use crate::files::plan::SsoPlan;
use crate::settings::endpoint;
use crate::settings::options::CliCache;
use crate::settings::run::Run;
use crate::sign::percent_encode;
use crate::source::call::{Call, request};
use crate::timestamp;
use crate::trace::Origin;
use crate::world::Context;

const BYTES_MAX: u64 = 1 << 20;
/// How long before its expiry a token is renewed, as in botocore.
const RENEW_EARLY: Duration = Duration::from_secs(15 * 60);

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// The token.
    pub token: Secret,
    /// The time of its expiry; `None`: unknown.
    pub expires_at: Option<SystemTime>,
}

/// Returns the credentials of the plan's account and role.
pub(crate) async fn load(run: &mut Run<'_>, plan: &SsoPlan) -> Result<Credentials, Error> {
    let Some((account, role)) = &plan.account_and_role else {
        let problem = "selected profile will resolve an access token instead of credentials: it has no \
                       sso_account_id and sso_role_name";
        return Err(Error::invalid(problem, plan.origin.clone()));
    };
    let cached = cli_cache::sso_path(run, plan);
    let _lock = match cli_cache::find(run, cached.as_deref(), Source::Sso).await? {
        cli_cache::Found::Session(credentials) => return Ok(credentials),
        cli_cache::Found::Nothing(lock) => lock,
    };
    let token = token(run, plan).await?;
    let endpoint = endpoint::of(run, "sso", Some(&plan.region)).await?;
    let url = format!(
        "{}/federation/credentials?role_name={}&account_id={}",
        endpoint.url,
        percent_encode(role),
        percent_encode(account)
    );
    let call = Call::new("SSO GetRoleCredentials", run);
    let headers = [("x-amz-sso_bearer_token", token.token.expose())];
    let response = call.send(run, || request("GET", &url, &headers, Bytes::new())).await?;
    if !response.status().is_success() {
        let refusal = Refusal::of(&response);
        if response.status() == http::StatusCode::UNAUTHORIZED
            || refusal.code == "UnauthorizedException"
        {
            return Err(login_required(plan, "the SSO session is not valid any more"));
        }
        let forbidden = response.status() == http::StatusCode::FORBIDDEN
            || matches!(refusal.code.as_str(), "ForbiddenException" | "ResourceNotFoundException");
        let hint = format!("is role {role} of account {account} assigned to you?");
        return Err(refusal.error("SSO", "GetRoleCredentials", forbidden.then_some(hint)));
    }
    let map = answer::object(call.name, response.body())?;
    let Some(Value::Object(keys)) = map.get("roleCredentials") else {
        return Err(Error::unexpected(call.name, "the answer has no roleCredentials"));
    };
    let member = |key| answer::required(call.name, keys, key);
    let mut credentials = Credentials::new(member("accessKeyId")?, member("secretAccessKey")?)
        .with_session_token(member("sessionToken")?)
        .with_account_id(account)
        .with_source(Source::Sso);
    let millis = keys.get("expiration").and_then(Value::as_u64);
    let millis =
        millis.ok_or_else(|| Error::unexpected(call.name, "the answer has no expiration"))?;
    credentials.expires_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
    if let Some(path) = cached.as_ref().filter(|_| run.options.cli_cache == CliCache::Roles) {
        cli_cache::write_sso(run, path, &credentials).await;
    }
    Ok(credentials)
}

/// Returns the session's token. If it expires soon, it is renewed if possible.
///
/// The file is read at every load: a new `aws sso login` takes effect at once.
pub(crate) async fn token(run: &mut Run<'_>, plan: &SsoPlan) -> Result<Token, Error> {
    let path = cache_path(run, plan)?;
    let data = run.context.files.read(&path, BYTES_MAX).await.map_err(|error| {
        let problem = format!("cannot read the SSO token {}: {error}", path.display());
        login_required(plan, &problem)
    })?;
    if data.others_may_read {
        run.trace.note("SSO token", format!("{} is readable by others", path.display()));
    }
    let what = "SSO token file";
    let cached = answer::object(what, &data.bytes)
        .map_err(|_| login_required(plan, "the SSO token file is not understood"))?;
    let access = answer::string(&cached, "accessToken");
    let expires_at = answer::string(&cached, "expiresAt").and_then(timestamp::parse);
    let (Some(access), Some(expires_at)) = (access, expires_at) else {
        return Err(login_required(plan, "the SSO token file has no token or no expiry"));
    };
    let token = Token { token: access.into(), expires_at: Some(expires_at) };
    let now = run.context.clock.now();
    if now + RENEW_EARLY < expires_at {
        return Ok(token);
    }
    if plan.session.is_some() {
        match renew(run, plan, &path, &cached).await {
            Ok(Some(renewed)) => return Ok(renewed),
            Ok(None) => {}
            // The old token is still valid.
            Err(error) if now < expires_at => run.trace.note("SSO token", error.report()),
            Err(error @ (Error::Failed { .. } | Error::TimedOut { .. })) => return Err(error),
            Err(error) => return Err(login_required(plan, &error.report())),
        }
    }
    if now < expires_at {
        return Ok(token);
    }
    Err(login_required(plan, "the SSO session has expired"))
}

fn cache_path(run: &Run<'_>, plan: &SsoPlan) -> Result<PathBuf, Error> {
    let key = plan.session.as_ref().unwrap_or(&plan.start_url);
    cache_file(run.context, key, plan.origin.clone())
}

/// Returns the file in which the AWS CLI keeps the token of a session, or the registration of a
/// client.
pub(crate) fn cache_file(context: &Context, key: &str, origin: Origin) -> Result<PathBuf, Error> {
    let home =
        context.home().ok_or_else(|| Error::invalid("no home folder, so no SSO token", origin))?;
    let name = sha1_smol::Sha1::from(key).hexdigest();
    Ok(home.join(".aws/sso/cache").join(format!("{name}.json")))
}

/// Renews the token with its refresh token. `None` if the file has no refresh token.
async fn renew(
    run: &mut Run<'_>,
    plan: &SsoPlan,
    path: &Path,
    cached: &Map<String, Value>,
) -> Result<Option<Token>, Error> {
    let member = |key| answer::string(cached, key);
    let (Some(client), Some(secret), Some(refresh)) =
        (member("clientId"), member("clientSecret"), member("refreshToken"))
    else {
        return Ok(None);
    };
    let now = run.context.clock.now();
    let registered = member("registrationExpiresAt").and_then(timestamp::parse);
    if registered.is_some_and(|until| until <= now) {
        return Ok(None);
    }
    let endpoint = endpoint::of(run, "sso_oidc", Some(&plan.region)).await?;
    let call = Call::new("SSO-OIDC CreateToken", run);
    let body = json!({
        "clientId": client, "clientSecret": secret, "grantType": "refresh_token",
        "refreshToken": refresh,
    });
    let body = Bytes::from(body.to_string());
    let headers = [("content-type", "application/json")];
    let url = format!("{}/token", endpoint.url);
    let response = call.send(run, || request("POST", &url, &headers, body.clone())).await?;
    if !response.status().is_success() {
        return Err(Refusal::of(&response).error("SSO-OIDC", "CreateToken", None));
    }
    let map = answer::object(call.name, response.body())?;
    let access = answer::required(call.name, &map, "accessToken")?;
    let seconds = map.get("expiresIn").and_then(Value::as_u64).unwrap_or(0);
    let expires_at = now + Duration::from_secs(seconds.min(366 * 86_400));
    let mut file = cached.clone();
    file.insert("accessToken".to_owned(), access.into());
    file.insert("expiresAt".to_owned(), timestamp::iso(expires_at).into());
    if let Some(refresh) = answer::string(&map, "refreshToken") {
        file.insert("refreshToken".to_owned(), refresh.into());
    }
    keep(run, path, file).await;
    Ok(Some(Token { token: access.into(), expires_at: Some(expires_at) }))
}

/// Writes a renewed token to the AWS CLI's cache. A failure only adds a note to the trace.
async fn keep(run: &mut Run<'_>, path: &Path, file: Map<String, Value>) {
    let bytes = Value::Object(file).to_string().into_bytes();
    if let Err(error) = run.context.cache_files.write_private(path, &bytes).await {
        crate::log::note("renewed SSO token not written", &error);
        run.trace.note("SSO token", format!("renewed, but not written: {error}"));
    }
}

fn login_required(plan: &SsoPlan, problem: &str) -> Error {
    let command = match plan.profile.as_str() {
        "default" => "aws sso login".to_owned(),
        profile => format!("aws sso login --profile {profile}"),
    };
    Error::LoginRequired { problem: problem.to_owned(), command }
}
