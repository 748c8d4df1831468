//! IAM Roles Anywhere: a role for the holder of a certificate's private key (`CreateSession`).
//!
//! Source: the pages on signing and on `CreateSession` in the user guide, "IAM Roles Anywhere
//! authentication".

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

use super::call::{Call, request};
use super::json as answer;
use super::pem;
use super::refusal::Refusal;
use crate::base64::encode;
use crate::credentials::{Credentials, ProvideCredentials, Secret, Source};
use crate::error::Error;
use crate::settings::endpoint::{self, Endpoint};
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::sign::{Signer, Unsigned, hex};
use crate::timestamp;
use crate::trace::Origin;
use crate::world::{BoxFuture, Context};

const FILE_BYTES_MAX: u64 = 1 << 18;
const OPERATION: &str = "CreateSession";

/// A role of IAM Roles Anywhere, and the files of the certificate that authenticates for it.
///
/// Files are in PEM and are read at each load, so that a renewed certificate takes effect. Keys are
/// RSA of 2,048 to 4,096 bits or ECDSA over P-256, in PKCS #8, PKCS #1 or SEC 1, not encrypted.
/// ECDSA over other curves, PKCS #11, PKCS #12 and TPM keys are not supported: run AWS's helper as
/// `credential_process` for those.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AnywhereRole {
    /// The ARN of the trust anchor, whose authority issued the certificate. Its region is the
    /// default.
    pub trust_anchor_arn: String,
    /// The ARN of the profile of IAM Roles Anywhere, which is not a profile of the shared files.
    pub profile_arn: String,
    /// The ARN of the role.
    pub role_arn: String,
    /// The file of the certificate. Further certificates in it are sent as the chain.
    pub certificate: PathBuf,
    /// The file of the certificate's private key.
    pub private_key: PathBuf,
    /// The file of the certificates between this one and the trust anchor's.
    pub intermediates: Option<PathBuf>,
    /// How long a session is valid, 15 minutes to 12 hours; `None`: as the profile says.
    pub duration: Option<Duration>,
    /// The session's name, which the profile must allow; `None`: the certificate's serial number.
    pub session_name: Option<String>,
    /// The region; `None`: the region of the trust anchor.
    pub region: Option<String>,
}

impl AnywhereRole {
    /// Returns a role with the certificate and the private key in these files.
    pub fn new(
        trust_anchor_arn: impl Into<String>,
        profile_arn: impl Into<String>,
        role_arn: impl Into<String>,
        certificate: impl Into<PathBuf>,
        private_key: impl Into<PathBuf>,
    ) -> Self {
        Self {
            trust_anchor_arn: trust_anchor_arn.into(),
            profile_arn: profile_arn.into(),
            role_arn: role_arn.into(),
            certificate: certificate.into(),
            private_key: private_key.into(),
            intermediates: None,
            duration: None,
            session_name: None,
            region: None,
        }
    }

    /// Parses a `credential_process` line that runs AWS's helper: `aws_signing_helper
    /// credential-process --certificate .. --private-key .. --trust-anchor-arn .. --profile-arn ..
    /// --role-arn ..`, optionally with `--intermediates`, `--session-duration`,
    /// `--role-session-name` and `--region`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for another command, for a missing option, and for an option that this
    /// crate does not support.
    pub fn from_helper_command(line: &str) -> Result<Self, Error> {
        let invalid = |problem: String| {
            let origin = Origin::Option("credential_process");
            Error::invalid(format!("aws_signing_helper: {problem}"), origin)
        };
        let words = crate::files::split_command(line).unwrap_or_default();
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_default();
        let name = program.rsplit(['/', '\\']).next().unwrap_or_default();
        if name.trim_end_matches(".exe") != "aws_signing_helper"
            || words.next().as_deref() != Some("credential-process")
        {
            return Err(invalid("another command than credential-process of it".to_owned()));
        }
        let mut role = Self::new("", "", "", "", "");
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            let value = value.or_else(|| words.next()).unwrap_or_default();
            match option.as_str() {
                "--certificate" => role.certificate = value.into(),
                "--private-key" => role.private_key = value.into(),
                "--intermediates" => role.intermediates = Some(value.into()),
                "--trust-anchor-arn" => role.trust_anchor_arn = value,
                "--profile-arn" => role.profile_arn = value,
                "--role-arn" => role.role_arn = value,
                "--role-session-name" => role.session_name = Some(value),
                "--region" => role.region = Some(value),
                "--session-duration" => {
                    let seconds = value.parse().map_err(|_| {
                        invalid("--session-duration is no number of seconds".to_owned())
                    })?;
                    role.duration = Some(Duration::from_secs(seconds));
                }
                other => return Err(invalid(format!("option {other} is not known"))),
            }
        }
        for (option, missing) in [
            ("--certificate", role.certificate.as_os_str().is_empty()),
            ("--private-key", role.private_key.as_os_str().is_empty()),
            ("--trust-anchor-arn", role.trust_anchor_arn.is_empty()),
            ("--profile-arn", role.profile_arn.is_empty()),
            ("--role-arn", role.role_arn.is_empty()),
        ] {
            if missing {
                return Err(invalid(format!("option {option} is missing")));
            }
        }
        Ok(role)
    }

    /// Adds the file of the certificates between the certificate and the trust anchor's.
    #[must_use]
    pub fn with_intermediates(mut self, path: impl Into<PathBuf>) -> Self {
        self.intermediates = Some(path.into());
        self
    }

    /// Sets how long a session is valid.
    #[must_use]
    pub fn with_duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// Sets the session's name.
    #[must_use]
    pub fn with_session_name(mut self, name: impl Into<String>) -> Self {
        self.session_name = Some(name.into());
        self
    }

    /// Returns the region: the field `region`, else that of the trust anchor. Trust anchor
    /// and profile must be in the same region.
    fn region(&self) -> Result<&str, Error> {
        let of_arn = |arn: &str| arn.split(':').nth(3).map(str::to_owned).unwrap_or_default();
        let (anchor, profile) = (of_arn(&self.trust_anchor_arn), of_arn(&self.profile_arn));
        let problem = match () {
            () if anchor.is_empty() => "the trust anchor's ARN has no region",
            () if anchor != profile => "trust anchor and profile are of different regions",
            () => {
                let of_anchor = self.trust_anchor_arn.split(':').nth(3).unwrap_or_default();
                let region = self.region.as_deref().unwrap_or(of_anchor);
                match crate::settings::region::is_label(region) {
                    true => return Ok(region),
                    false => "the region is none",
                }
            }
        };
        Err(Error::invalid(problem, Origin::Option("trust_anchor_arn")))
    }
}

/// Opens sessions of an [`AnywhereRole`]. Wrap it in a [`crate::Cache`].
///
/// ```
/// use aws_cred_chain::{AnywhereRole, Cache, Context, Options, RolesAnywhere};
///
/// let context = Context::real();
/// let role = AnywhereRole::new(
///     "arn:aws:rolesanywhere:eu-west-1:123456789012:trust-anchor/ab",
///     "arn:aws:rolesanywhere:eu-west-1:123456789012:profile/cd",
///     "arn:aws:iam::123456789012:role/Machine",
///     "/etc/machine/certificate.pem",
///     "/etc/machine/key.pem",
/// );
/// let cache = Cache::new(context.clone(), RolesAnywhere::new(context, Options::default(), role));
/// ```
#[derive(Clone, Debug)]
pub struct RolesAnywhere {
    role: AnywhereRole,
    context: Context,
    options: Options,
}

impl RolesAnywhere {
    /// Returns a provider of sessions of `role`.
    #[must_use]
    pub fn new(context: Context, options: Options, role: AnywhereRole) -> Self {
        Self { role, context, options }
    }

    async fn load(&self) -> Result<Credentials, Error> {
        let role = &self.role;
        let region = role.region()?;
        let identity = self.identity().await?;
        let mut run = Run::new(&self.context, &self.options);
        let endpoint = endpoint::of(&mut run, "rolesanywhere", Some(region)).await?;
        let mut body = json!({
            "profileArn": role.profile_arn, "roleArn": role.role_arn,
            "trustAnchorArn": role.trust_anchor_arn,
        });
        if let Some(duration) = role.duration {
            body["durationSeconds"] = duration.as_secs().into();
        }
        if let Some(name) = &role.session_name {
            body["roleSessionName"] = name.as_str().into();
        }
        let body = Bytes::from(body.to_string());
        let clock = self.context.clock.clone();
        let call = Call::new("Roles Anywhere CreateSession", &run);
        let send = call.send(&mut run, || identity.request(&endpoint, clock.now(), &body));
        let response = send.await?;
        if !response.status().is_success() {
            let denied = response.status() == http::StatusCode::FORBIDDEN;
            let hint = "is the certificate valid, issued by the trust anchor's authority, and does the \
                        role trust rolesanywhere.amazonaws.com?";
            let hint = denied.then(|| hint.to_owned());
            return Err(Refusal::of(&response).error("Roles Anywhere", OPERATION, hint));
        }
        let map = answer::object(call.name, response.body())?;
        let set = map.get("credentialSet").and_then(|set| set.get(0));
        let Some(Value::Object(keys)) = set.and_then(|set| set.get("credentials")) else {
            return Err(Error::unexpected(OPERATION, "the answer has no credentials"));
        };
        let member = |key| answer::required(OPERATION, keys, key);
        let expires_at = timestamp::parse(member("expiration")?)
            .ok_or_else(|| Error::unexpected(OPERATION, "expiration is not an ISO 8601 time"))?;
        let mut credentials = Credentials::new(member("accessKeyId")?, member("secretAccessKey")?)
            .with_session_token(member("sessionToken")?)
            .with_expires_at(expires_at)
            .with_source(Source::RolesAnywhere);
        let account = role.role_arn.split(':').nth(4).filter(|account| !account.is_empty());
        credentials.account_id = account.map(str::to_owned);
        Ok(credentials)
    }

    async fn identity(&self) -> Result<Identity, Error> {
        let role = &self.role;
        let of_file = |path: &Path, problem: &str| {
            let problem = format!("{}: {problem}", path.display());
            Error::invalid(problem, Origin::Option("roles_anywhere"))
        };
        let mut chain = Vec::new();
        for path in std::iter::once(&role.certificate).chain(&role.intermediates) {
            let text = self.read(path).await?;
            let blocks = pem::blocks(text.expose()).into_iter();
            let certificates =
                blocks.filter(|(label, _)| label == "CERTIFICATE").map(|(_, der)| der);
            let before = chain.len();
            chain.extend(certificates);
            if chain.len() == before {
                return Err(of_file(path, "no certificate in PEM"));
            }
        }
        let certificate = chain.remove(0);
        let serial = pem::serial_number(&certificate)
            .ok_or_else(|| of_file(&role.certificate, "the certificate has no serial number"))?;
        let text = self.read(&role.private_key).await?;
        let key = pem::blocks(text.expose()).iter().find_map(PrivateKey::read);
        let problem = "no private key in PEM, RSA or ECDSA over P-256, not encrypted";
        let key = key.ok_or_else(|| of_file(&role.private_key, problem))?;
        if !key.is_of(&certificate) {
            return Err(of_file(
                &role.private_key,
                "the private key is not that of the certificate",
            ));
        }
        Ok(Identity { certificate, chain, serial, key })
    }

    async fn read(&self, path: &Path) -> Result<Secret, Error> {
        let path = match path.to_str() {
            Some(text) => self.context.expand(text),
            None => path.to_owned(),
        };
        let data = self.context.files.read(&path, FILE_BYTES_MAX).await.map_err(|error| {
            let problem = format!("cannot read {}: {error}", path.display());
            Error::invalid(problem, Origin::Option("roles_anywhere"))
        })?;
        let text = String::from_utf8(data.bytes).map_err(|_| {
            let problem = format!("{} is not in PEM", path.display());
            Error::invalid(problem, Origin::Option("roles_anywhere"))
        })?;
        Ok(text.into())
    }
}

impl ProvideCredentials for RolesAnywhere {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(self.load())
    }
}

/// A certificate, its chain and its private key.
struct Identity {
    certificate: Vec<u8>,
    chain: Vec<Vec<u8>>,
    serial: String,
    key: PrivateKey,
}

impl Identity {
    /// Returns the signed request for a session at `now`.
    fn request(
        &self,
        endpoint: &Endpoint,
        now: std::time::SystemTime,
        body: &Bytes,
    ) -> Result<http::Request<Bytes>, Error> {
        let url = format!("{}/sessions", endpoint.url);
        let uri: http::Uri = url.parse().map_err(|error| Error::failed(url.clone(), error))?;
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        // The certificate's serial number takes the place of an access key id. There is no secret
        // key.
        let holder = Credentials::new(self.serial.as_str(), "");
        let signer = Signer::new(&holder, &endpoint.signing_region, "rolesanywhere", now);
        let given = [("content-type", "application/json"), ("host", host.as_str())];
        let unsigned = Unsigned::new("POST", uri.path(), "", &given, body);
        let mut additions = vec![
            ("x-amz-date".to_owned(), timestamp::compact(now)),
            ("x-amz-x509".to_owned(), encode(&self.certificate)),
        ];
        if !self.chain.is_empty() {
            let chain: Vec<String> = self.chain.iter().map(|der| encode(der)).collect();
            additions.push(("x-amz-x509-chain".to_owned(), chain.join(",")));
        }
        let body_hash = hex(&hmac_sha256::Hash::hash(body));
        let algorithm = self.key.algorithm();
        let signature =
            signer.headers_signed(algorithm, &unsigned, &body_hash, additions, |text| {
                self.key.sign(text.as_bytes())
            })?;
        let added = signature.additions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<(&str, &str)> = given[..1].iter().copied().chain(added).collect();
        request("POST", &url, &headers, body.clone())
    }
}

enum PrivateKey {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

impl PrivateKey {
    fn read((label, der): &pem::Block) -> Option<Self> {
        if label == "RSA PRIVATE KEY" {
            return RsaKeyPair::from_der(der).ok().map(Self::Rsa);
        }
        if label != "PRIVATE KEY" && label != "EC PRIVATE KEY" {
            return None;
        }
        let of_p256 = pem::p256_key(der, &ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        of_p256.map(Self::Ecdsa).or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(Self::Rsa))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "AWS4-X509-RSA-SHA256",
            Self::Ecdsa(_) => "AWS4-X509-ECDSA-SHA256",
        }
    }

    /// Returns whether the certificate contains the public part of this key.
    fn is_of(&self, certificate: &[u8]) -> bool {
        let public = match self {
            Self::Rsa(key) => key.public_key().as_ref(),
            Self::Ecdsa(key) => key.public_key().as_ref(),
        };
        certificate.windows(public.len()).any(|window| window == public)
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        let refused = |_| Error::unexpected("signing with the private key", "it does not sign");
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature).map_err(refused)?;
                Ok(signature)
            }
            Self::Ecdsa(key) => {
                key.sign(&random, text).map(|it| it.as_ref().to_vec()).map_err(refused)
            }
        }
    }
}
