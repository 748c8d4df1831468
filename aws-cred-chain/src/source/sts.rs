//! The AWS Security Token Service: roles, web identity, MFA sessions, caller identity.

use std::time::Duration;

use bytes::Bytes;

use crate::cache::cli as cli_cache;
use crate::credentials::{Credentials, Secret, Source};
use crate::error::Error;
use crate::files::plan::Role;
use crate::settings::budget::within;
use crate::settings::endpoint::{self, Endpoint};
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::sign::{Signer, Unsigned, percent_encode};
use crate::source::call::Call;
use crate::source::refusal::Refusal;
use crate::source::text::text;
use crate::source::xml;
use crate::timestamp;
use crate::trace::Origin;
use crate::world::{Context, Question};

const TOKEN_BYTES_MAX: u64 = 1 << 16;

/// The form body of a request in STS's query protocol.
struct Form(String);

impl Form {
    fn new(action: &str) -> Self {
        Self(format!("Action={action}&Version=2011-06-15"))
    }

    fn add(&mut self, name: &str, value: &str) {
        self.0.push('&');
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&percent_encode(value));
    }
}

/// Assumes `role` with the credentials `base`. Uses the AWS CLI's cache if the options allow it.
pub(crate) async fn assume_role(
    run: &mut Run<'_>,
    base: &Credentials,
    role: &Role,
) -> Result<Credentials, Error> {
    let cached = cli_cache::path(run, role);
    let _lock = match cli_cache::find(run, cached.as_deref(), Source::AssumeRole).await? {
        cli_cache::Found::Session(credentials) => return Ok(credentials),
        cli_cache::Found::Nothing(lock) => lock,
    };
    let mut form = Form::new("AssumeRole");
    add_role(run, &mut form, role);
    if let Some(id) = &role.external_id {
        form.add("ExternalId", id);
    }
    add_tags(&mut form, role);
    for (number, key) in (1..).zip(&role.transitive_tag_keys) {
        form.add(&format!("TransitiveTagKeys.member.{number}"), key);
    }
    if let Some(identity) = &role.source_identity {
        form.add("SourceIdentity", identity);
    }
    let xml = match &role.mfa_serial {
        Some(serial) => {
            let device = (serial.as_str(), role.profile.as_deref());
            post_with_code(run, "AssumeRole", &form, device, base).await?
        }
        None => post(run, "AssumeRole", &form, Some(base)).await?,
    };
    let credentials = credentials("AssumeRole", &xml, Source::AssumeRole)?;
    if let Some(path) = &cached {
        cli_cache::write(run, path, &credentials, &xml).await;
    }
    Ok(credentials)
}

/// Assumes `role` with the token in `token_file`.
pub(crate) async fn web_identity(
    run: &mut Run<'_>,
    role: &Role,
    token_file: &str,
    origin: &Origin,
) -> Result<Credentials, Error> {
    // The AWS CLI's cache key for these sessions has only the role and the session name.
    let mut cached_as = Role::new(&role.role_arn);
    cached_as.session_name.clone_from(&role.session_name);
    let cached = cli_cache::path(run, &cached_as);
    let _lock = match cli_cache::find(run, cached.as_deref(), Source::WebIdentity).await? {
        cli_cache::Found::Session(credentials) => return Ok(credentials),
        cli_cache::Found::Nothing(lock) => lock,
    };
    let path = run.context.expand(token_file);
    let data = run.context.files.read(&path, TOKEN_BYTES_MAX).await.map_err(|error| {
        let problem = format!("cannot read web identity token {token_file}: {error}");
        Error::invalid(problem, origin.clone())
    })?;
    let token = String::from_utf8(data.bytes)
        .map_err(|_| Error::invalid("web identity token is not UTF-8", origin.clone()))?;
    let mut form = Form::new("AssumeRoleWithWebIdentity");
    add_role(run, &mut form, role);
    form.add("WebIdentityToken", token.trim());
    let xml = post(run, "AssumeRoleWithWebIdentity", &form, None).await?;
    let credentials = credentials("AssumeRoleWithWebIdentity", &xml, Source::WebIdentity)?;
    if let Some(path) = &cached {
        cli_cache::write(run, path, &credentials, &xml).await;
    }
    Ok(credentials)
}

/// Opens a session for the user of `base` with a code of the MFA device `serial`.
pub(crate) async fn session_token(
    run: &mut Run<'_>,
    base: &Credentials,
    serial: &str,
    duration: Option<Duration>,
    profile: Option<&str>,
) -> Result<Credentials, Error> {
    let mut form = Form::new("GetSessionToken");
    if let Some(duration) = duration {
        form.add("DurationSeconds", &duration.as_secs().to_string());
    }
    let xml = post_with_code(run, "GetSessionToken", &form, (serial, profile), base).await?;
    let mut credentials = credentials("GetSessionToken", &xml, Source::SessionToken)?;
    credentials.account_id = credentials.account_id.or_else(|| base.account_id.clone());
    Ok(credentials)
}

/// Opens a session of the federated user `name`. `base` must be the long-term keys of an IAM user.
pub(crate) async fn federation_token(
    run: &mut Run<'_>,
    base: &Credentials,
    name: &str,
    limits: &Role,
) -> Result<Credentials, Error> {
    let operation = "GetFederationToken";
    let mut form = Form::new(operation);
    form.add("Name", name);
    add_limits(&mut form, limits);
    add_tags(&mut form, limits);
    let xml = post(run, operation, &form, Some(base)).await?;
    credentials(operation, &xml, Source::Federation)
}

/// Assumes `role` with an assertion of the identity provider `principal_arn`.
pub(crate) async fn saml(
    run: &mut Run<'_>,
    role: &Role,
    principal_arn: &str,
    assertion: &Secret,
) -> Result<Credentials, Error> {
    let operation = "AssumeRoleWithSAML";
    let mut form = Form::new(operation);
    form.add("RoleArn", &role.role_arn);
    form.add("PrincipalArn", principal_arn);
    form.add("SAMLAssertion", assertion.expose());
    add_limits(&mut form, role);
    let xml = post(run, operation, &form, None).await?;
    credentials(operation, &xml, Source::Saml)
}

/// The identity behind credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The account id.
    pub account: String,
    /// The ARN of the user or of the role's session.
    pub arn: String,
    /// The unique id of the user or of the role's session.
    pub user_id: String,
}

/// Asks STS for the identity of `credentials` (`GetCallerIdentity`, which needs no permission).
///
/// # Errors
///
/// [`Error::Denied`] if the credentials are not valid. [`Error::Failed`] if STS cannot be reached.
pub async fn caller_identity(
    context: &Context,
    options: &Options,
    credentials: &Credentials,
) -> Result<Identity, Error> {
    let mut run = Run::new(context, options);
    let operation = "GetCallerIdentity";
    let xml = post(&mut run, operation, &Form::new(operation), Some(credentials)).await?;
    let member = |name| {
        let missing = || Error::unexpected(operation, format!("the answer has no {name}"));
        xml::text(&xml, name).ok_or_else(missing)
    };
    Ok(Identity { account: member("Account")?, arn: member("Arn")?, user_id: member("UserId")? })
}

fn add_role(run: &Run<'_>, form: &mut Form, role: &Role) {
    form.add("RoleArn", &role.role_arn);
    match &role.session_name {
        Some(name) => form.add("RoleSessionName", name),
        None => {
            let now = run.context.clock.now().duration_since(std::time::UNIX_EPOCH);
            let millis = now.unwrap_or_default().as_millis();
            form.add("RoleSessionName", &format!("aws-cred-chain-{millis}"));
        }
    }
    add_limits(form, role);
}

/// Adds the duration and the policies that restrict a session.
fn add_limits(form: &mut Form, role: &Role) {
    if let Some(duration) = role.duration {
        form.add("DurationSeconds", &duration.as_secs().to_string());
    }
    if let Some(policy) = &role.policy {
        form.add("Policy", policy);
    }
    for (number, arn) in (1..).zip(&role.policy_arns) {
        form.add(&format!("PolicyArns.member.{number}.arn"), arn);
    }
}

fn add_tags(form: &mut Form, role: &Role) {
    for (number, (key, value)) in (1..).zip(&role.tags) {
        form.add(&format!("Tags.member.{number}.Key"), key);
        form.add(&format!("Tags.member.{number}.Value"), value);
    }
}

/// Asks for an MFA code and sends `form` with it. If STS refuses the code, asks again.
async fn post_with_code(
    run: &mut Run<'_>,
    operation: &'static str,
    form: &Form,
    (serial, profile): (&str, Option<&str>),
    signer: &Credentials,
) -> Result<String, Error> {
    let questions_max = run.options.mfa_questions_max.clamp(1, 10);
    let mut refused = None;
    for question in 1..=questions_max {
        let code = match ask(run, serial, profile, question > 1).await {
            Ok(code) => code,
            Err(error) => return Err(refused.unwrap_or(error)),
        };
        let mut form = Form(form.0.clone());
        form.add("SerialNumber", serial);
        form.add("TokenCode", &code);
        match post(run, operation, &form, Some(signer)).await {
            Err(error) if is_wrong_code(&error) => {
                run.trace.note("MFA code", error.report());
                refused = Some(error);
            }
            answer => return answer,
        }
    }
    Err(refused.unwrap_or_else(|| Error::unexpected("MFA code", "nobody was asked")))
}

/// Returns whether STS refused the code, not the role. Only the text of the error tells them apart.
fn is_wrong_code(error: &Error) -> bool {
    match error {
        Error::Denied { message, .. } => message.contains("invalid MFA one time pass code"),
        _ => false,
    }
}

async fn ask(
    run: &mut Run<'_>,
    serial: &str,
    profile: Option<&str>,
    again: bool,
) -> Result<String, Error> {
    let text = match again {
        false => format!("Enter MFA code for {serial}: "),
        true => format!("The code was not right. Enter MFA code for {serial}: "),
    };
    let question =
        Question { mfa_serial: serial.to_owned(), profile: profile.map(str::to_owned), text };
    let context = run.context;
    let what = format!("MFA code for {serial}");
    let budget = run.options.prompt_limit();
    let asking = within(&*context.clock, budget, context.prompt.ask(question));
    let answer = run.waiting().of(&*context.clock, asking).await;
    let answer = answer.ok_or_else(|| Error::TimedOut { operation: what.clone(), budget })?;
    let answer = answer.map_err(|error| match error.kind() {
        std::io::ErrorKind::Unsupported => Error::failed(what.clone(), error)
            .with_hint("give the context a prompt, or log in with the AWS CLI first"),
        _ => Error::failed(what.clone(), error),
    })?;
    // Some devices show `123 456`.
    let code: String = answer.expose().split_whitespace().collect();
    if code.is_empty() || code.len() > 16 || !code.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Error::unexpected(what, "what was entered is no code"));
    }
    Ok(code)
}

async fn post(
    run: &mut Run<'_>,
    operation: &'static str,
    form: &Form,
    signer: Option<&Credentials>,
) -> Result<String, Error> {
    let endpoint = endpoint::of(run, "sts", None).await?;
    let call = Call::new(operation, run);
    let budget = run.options.source_budget;
    let context = run.context;
    let body = Bytes::from(form.0.clone());
    let send = call.send(run, || signed(context, &endpoint, &body, signer));
    let response = within(&*context.clock, budget, send)
        .await
        .ok_or_else(|| Error::TimedOut { operation: format!("STS {operation}"), budget })??;
    if response.status().is_success() {
        return Ok(text(&response));
    }
    let refusal = Refusal::of(&response);
    if refusal.code.is_empty() {
        let what = format!("HTTP {}", response.status().as_u16());
        return Err(Error::unexpected(operation, what));
    }
    let hint = hint(&refusal.code, signer.is_some());
    Err(refusal.error("STS", operation, hint))
}

fn hint(code: &str, signed: bool) -> Option<String> {
    let text = match (code, signed) {
        ("ExpiredToken" | "ExpiredTokenException", true) => {
            "the credentials that sign the call have expired"
        }
        ("ExpiredToken" | "ExpiredTokenException", false) => {
            "the web identity token has expired; does whatever writes its file still run?"
        }
        ("RequestExpired", _) => "check this machine's clock",
        ("SignatureDoesNotMatch", _) => "check the secret access key, then this machine's clock",
        ("InvalidClientTokenId", true) => {
            "the access key id is not known to AWS: it was deleted, or is a session's and its token is \
             missing"
        }
        ("AccessDenied", true) => "check the role's trust policy, the external id and the MFA code",
        ("AccessDenied", false) => {
            "check the role's trust policy: the identity provider, audience and subject that it names"
        }
        ("RegionDisabledException", _) => "STS is disabled in this region; name another region",
        _ => return None,
    };
    Some(text.to_owned())
}

fn signed(
    context: &Context,
    endpoint: &Endpoint,
    body: &Bytes,
    signer: Option<&Credentials>,
) -> Result<http::Request<Bytes>, Error> {
    let url = format!("{}/", endpoint.url);
    let uri: http::Uri = url.parse().map_err(|error| Error::failed(url.clone(), error))?;
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let content_type = "application/x-www-form-urlencoded";
    let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
    if let Some(credentials) = signer {
        let time = context.clock.now();
        let signer = Signer::new(credentials, &endpoint.signing_region, "sts", time);
        let signing = [("content-type", content_type), ("host", host.as_str())];
        let request = Unsigned::new("POST", uri.path(), "", &signing, body);
        headers.extend(signer.sign_headers(&request).additions);
    }
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    crate::source::call::request("POST", &url, &headers, body.clone())
}

/// Parses the credentials in an answer of STS.
pub(crate) fn credentials(
    operation: &'static str,
    answer: &str,
    source: Source,
) -> Result<Credentials, Error> {
    let missing = |name: &str| Error::unexpected(operation, format!("the answer has no {name}"));
    let part = xml::element(answer, "Credentials").ok_or_else(|| missing("Credentials"))?;
    let member = |name: &str| {
        xml::text(part, name).filter(|text| !text.is_empty()).ok_or_else(|| missing(name))
    };
    let mut credentials = Credentials::new(member("AccessKeyId")?, member("SecretAccessKey")?)
        .with_session_token(member("SessionToken")?)
        .with_source(source);
    let expiration = member("Expiration")?;
    let expires_at = timestamp::parse(&expiration)
        .ok_or_else(|| Error::unexpected(operation, "Expiration is not an ISO 8601 time"))?;
    credentials.expires_at = Some(expires_at);
    // arn:aws:sts::ACCOUNT:assumed-role/..
    credentials.account_id = xml::text(answer, "Arn")
        .and_then(|arn| arn.split(':').nth(4).map(str::to_owned))
        .filter(|account| !account.is_empty());
    Ok(credentials)
}
