//! The console's login (`aws login`). A sign-in in the browser gives temporary credentials, which
//! are renewed with a private key of this machine.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Map, Value, json};

use super::pkce::Proof;
use super::{
    ListenForRedirect, LoginPage, LoginPrompt, REDIRECT_PATH, code, code_of_browser, show,
};
use crate::base64::{decode, encode};
use crate::credentials::{Credentials, Secret};
use crate::error::Error;
use crate::settings::budget::within;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::settings::{endpoint, region};
use crate::sign::percent_encode;
use crate::source::call::{Call, request};
use crate::source::json as answer;
use crate::source::refusal::Refusal;
use crate::source::{dpop, login};
use crate::timestamp;
use crate::trace::Origin;
use crate::world::Context;

const WHAT: &str = "sign-in CreateOAuth2Token";
const SAME_DEVICE: &str = "arn:aws:signin:::devtools/same-device";
const CROSS_DEVICE: &str = "arn:aws:signin:::devtools/cross-device";

/// A login to the console. Its region is that of the options, the environment or the profile, else
/// `us-east-1`.
#[derive(Clone, Debug)]
pub struct ConsoleLogin {
    context: Context,
    options: Options,
}

/// The result of a login to the console, which is written to the AWS CLI's cache. A profile with
/// the line `login_session = SESSION` makes a chain use it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoginSession {
    /// The value of `login_session`: the ARN of the identity that logged in.
    pub session: String,
    /// The credentials of the session. A chain renews them.
    pub credentials: Credentials,
}

impl ConsoleLogin {
    /// Returns a login.
    #[must_use]
    pub fn new(context: Context, options: Options) -> Self {
        Self { context, options }
    }

    /// Logs in with a browser on this machine.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if nobody logs in within [`Options::prompt_budget`]. [`Error::Denied`]
    /// if the service refuses. [`Error::Failed`] if the person refuses, the page cannot be shown,
    /// no port is free, or the session cannot be written.
    pub async fn by_browser(
        &self,
        prompt: &dyn LoginPrompt,
        listener: &dyn ListenForRedirect,
    ) -> Result<LoginSession, Error> {
        let mut run = Run::new(&self.context, &self.options);
        let base = base(&mut run).await?;
        let redirect =
            listener.listen().map_err(|error| Error::failed("listening for the browser", error))?;
        let redirect_uri = format!("http://127.0.0.1:{}{REDIRECT_PATH}", redirect.port());
        let proof = Proof::draw()?;
        let page = page(&base, SAME_DEVICE, &redirect_uri, &proof);
        let code = code_of_browser(&run, prompt, redirect, &page, &proof.state).await?;
        self.exchange(&mut run, &base, SAME_DEVICE, &redirect_uri, &code, &proof).await
    }

    /// Logs in with a browser on any machine. Its last page shows a text that the person enters
    /// here (`aws login --remote`).
    ///
    /// # Errors
    ///
    /// As [`ConsoleLogin::by_browser`].
    pub async fn by_code(&self, prompt: &dyn LoginPrompt) -> Result<LoginSession, Error> {
        let mut run = Run::new(&self.context, &self.options);
        let base = base(&mut run).await?;
        let redirect_uri = format!("{base}/v1/sessions/confirmation");
        let proof = Proof::draw()?;
        let page = page(&base, CROSS_DEVICE, &redirect_uri, &proof);
        show(prompt, &page).await?;
        let budget = self.options.prompt_limit();
        let text = within(&*self.context.clock, budget, prompt.ask_code(&page))
            .await
            .ok_or_else(|| Error::TimedOut { operation: "login".to_owned(), budget })?
            .map_err(|error| Error::failed("asking for the code of the login", error))?;
        let query = decode(text.expose().trim()).and_then(|bytes| String::from_utf8(bytes).ok());
        let no_code = || Error::unexpected("login", "what was entered is no code");
        let query = Secret::from(query.ok_or_else(no_code)?);
        let code = code(query.expose(), proof.state.expose())?;
        self.exchange(&mut run, &base, CROSS_DEVICE, &redirect_uri, &code, &proof).await
    }

    /// Exchanges the code for credentials, and writes them with the private key that renews them.
    async fn exchange(
        &self,
        run: &mut Run<'_>,
        base: &str,
        client: &str,
        redirect_uri: &str,
        code: &Secret,
        proof: &Proof,
    ) -> Result<LoginSession, Error> {
        let pem = new_key()?;
        let url = format!("{base}/v1/token");
        let body = json!({
            "clientId": client, "grantType": "authorization_code", "code": code.expose(),
            "codeVerifier": proof.verifier.expose(), "redirectUri": redirect_uri,
        });
        let body = Bytes::from(body.to_string());
        let clock = self.context.clock.clone();
        let call = Call::new(WHAT, run);
        let send = call.send(run, || {
            let proof = dpop::proof(pem.expose(), &url, clock.now())?;
            let headers = [("content-type", "application/json"), ("dpop", proof.as_str())];
            request("POST", &url, &headers, body.clone())
        });
        let response = send.await?;
        if !response.status().is_success() {
            let denied = response.status() == http::StatusCode::FORBIDDEN;
            let hint = "log in again; the identity needs the policy SignInLocalDevelopmentAccess";
            let hint = denied.then(|| hint.to_owned());
            return Err(Refusal::of(&response).error("sign-in", "CreateOAuth2Token", hint));
        }
        let map = answer::object(WHAT, response.body())?;
        let session = subject(answer::required(WHAT, &map, "idToken")?)
            .ok_or_else(|| Error::unexpected(WHAT, "the identity token names nobody"))?;
        let account = session.split(':').nth(4).unwrap_or_default().to_owned();
        let file = file(&map, client, &account, &pem, clock.now())?;
        let credentials = login::parse(&file)?;
        let path = login::path(run, &session, &Origin::Unknown)?;
        let bytes = Value::Object(file).to_string().into_bytes();
        let written = self.context.cache_files.write_private(&path, &bytes).await;
        written.map_err(|error| Error::failed(format!("writing {}", path.display()), error))?;
        Ok(LoginSession { session, credentials })
    }
}

/// Returns the content of the cache file, in the AWS CLI's format.
fn file(
    created: &Map<String, Value>,
    client: &str,
    account: &str,
    pem: &Secret,
    now: std::time::SystemTime,
) -> Result<Map<String, Value>, Error> {
    let Some(Value::Object(keys)) = created.get("accessToken") else {
        return Err(Error::unexpected(WHAT, "the answer has no accessToken"));
    };
    let member = |key| answer::required(WHAT, keys, key);
    let life = created.get("expiresIn").and_then(Value::as_u64).unwrap_or(0).min(86_400);
    let expires_at = timestamp::iso(now + Duration::from_secs(life));
    let file = json!({
        "accessToken": {
            "accessKeyId": member("accessKeyId")?,
            "secretAccessKey": member("secretAccessKey")?,
            "sessionToken": member("sessionToken")?,
            "accountId": account,
            "expiresAt": expires_at,
        },
        "tokenType": created.get("tokenType").cloned().unwrap_or_default(),
        "clientId": client,
        "refreshToken": answer::required(WHAT, created, "refreshToken")?,
        "idToken": answer::required(WHAT, created, "idToken")?,
        "dpopKey": pem.expose(),
    });
    match file {
        Value::Object(file) => Ok(file),
        _ => Err(Error::unexpected(WHAT, "the cache file is no object")),
    }
}

async fn base(run: &mut Run<'_>) -> Result<String, Error> {
    let region = region::configured(run).await?.map(|(region, _)| region);
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    Ok(endpoint::of(run, "signin", Some(&region)).await?.url)
}

fn page(base: &str, client: &str, redirect_uri: &str, proof: &Proof) -> LoginPage {
    let mut url = format!("{base}/v1/authorize?response_type=code");
    for (name, value) in [
        ("client_id", client),
        ("state", proof.state.expose()),
        ("code_challenge_method", "SHA-256"),
        ("scope", "openid"),
        ("redirect_uri", redirect_uri),
        ("code_challenge", &proof.challenge),
    ] {
        let _infallible = write!(url, "&{name}={}", percent_encode(value));
    }
    LoginPage { url: url.clone(), user_code: None, url_with_code: url }
}

/// Returns the subject of an identity token (a JWT). The signature is not checked: the service
/// itself sent the token over TLS.
fn subject(token: &str) -> Option<String> {
    let payload = decode(token.split('.').nth(1)?)?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let subject = claims.get("sub")?.as_str()?;
    subject.starts_with("arn:").then(|| subject.to_owned())
}

/// Generates a P-256 key, in the PEM form of the AWS CLI's cache (SEC 1, RFC 5915).
fn new_key() -> Result<Secret, Error> {
    let failed = |_| Error::unexpected("login", "no key could be made");
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
    let der = document.as_ref();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, der, &random)
        .map_err(|_| Error::unexpected("login", "no key could be made"))?;
    // The private key is an octet string of 32 bytes after the version of the inner structure.
    let mark = [0x02, 0x01, 0x01, 0x04, 0x20];
    let at = der.windows(mark.len()).position(|window| window == mark);
    let private = at.and_then(|at| der.get(at + mark.len()..)?.get(..32));
    let private = private.ok_or_else(|| Error::unexpected("login", "no key could be made"))?;
    let mut sec1 = vec![0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20];
    sec1.extend_from_slice(private);
    // The curve's name, then the public point.
    sec1.extend_from_slice(&[
        0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ]);
    sec1.extend_from_slice(&[0xa1, 0x44, 0x03, 0x42, 0x00]);
    sec1.extend_from_slice(key.public_key().as_ref());
    let text = encode(&sec1);
    let mut pem = "-----BEGIN EC PRIVATE KEY-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END EC PRIVATE KEY-----\n");
    Ok(pem.into())
}
