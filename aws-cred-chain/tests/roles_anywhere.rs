//! IAM Roles Anywhere, with a server that verifies signatures with the certificate's public key.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_cred_chain::testing::World;
use aws_cred_chain::{
    AnywhereRole, BoxFuture, Credentials, Error, HttpError, Options, ProvideCredentials,
    RolesAnywhere, SendHttp, Source, block_on,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};

const ANCHOR: &str = "arn:aws:rolesanywhere:eu-west-1:123456789012:trust-anchor/ab";
const PROFILE: &str = "arn:aws:rolesanywhere:eu-west-1:123456789012:profile/cd";
const ROLE: &str = "arn:aws:iam::123456789012:role/Machine";
const BODY: &str = r#"{"credentialSet":[{"assumedRoleUser":{"arn":"arn:aws:sts::123456789012:assumed-role/Machine/2a"},
    "credentials":{"accessKeyId":"ASIAANYWHERE","secretAccessKey":"s3cr3t","sessionToken":"t0k3n",
    "expiration":"2026-01-01T01:00:00Z"}}],"subjectArn":"x"}"#;

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The service: rebuilds the string to sign from the request, as the user guide describes, and
/// verifies the signature.
#[derive(Clone)]
struct Service {
    algorithm: &'static str,
    verification: &'static dyn VerificationAlgorithm,
    public_key: Vec<u8>,
    seen: Arc<Mutex<Vec<http::Request<Bytes>>>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

impl Service {
    fn accepts(&self, request: &http::Request<Bytes>, serial: &str) -> bool {
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        let authorization = header("authorization");
        let (algorithm, rest) = authorization.split_once(' ').unwrap();
        let part = |name: &str| {
            rest.split(", ").find_map(|part| part.strip_prefix(name)).unwrap().to_owned()
        };
        let (names, signature) = (part("SignedHeaders="), part("Signature="));
        let credential = part("Credential=");
        let (number, scope) = credential.split_once('/').unwrap();
        let mut canonical = "POST\n/sessions\n\n".to_owned();
        for name in names.split(';') {
            let value = match name {
                "host" => request.uri().authority().unwrap().as_str(),
                other => header(other),
            };
            canonical.push_str(&format!("{name}:{value}\n"));
        }
        canonical.push_str(&format!("\n{names}\n{}", sha256(request.body())));
        let date = header("x-amz-date");
        let text = format!("{algorithm}\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let digits = |at: usize| u8::from_str_radix(&signature[at..at + 2], 16).unwrap();
        let signature: Vec<u8> = (0..signature.len()).step_by(2).map(digits).collect();
        let key = UnparsedPublicKey::new(self.verification, &self.public_key);
        key.verify(text.as_bytes(), &signature).is_ok()
            && algorithm == self.algorithm
            && number == serial
            && scope == format!("{}/eu-west-1/rolesanywhere/aws4_request", &date[..8])
            && ["content-type", "host", "x-amz-date", "x-amz-x509"]
                .iter()
                .all(|needed| names.split(';').any(|name| name == *needed))
    }
}

impl SendHttp for Service {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        self.seen.lock().unwrap().push(request);
        let mut response = http::Response::new(Bytes::from_static(BODY.as_bytes()));
        *response.status_mut() = http::StatusCode::CREATED;
        Box::pin(std::future::ready(Ok(response)))
    }
}

fn service(
    algorithm: &'static str,
    verification: &'static dyn VerificationAlgorithm,
    public_key: Vec<u8>,
) -> Service {
    Service { algorithm, verification, public_key, seen: Arc::default() }
}

fn role() -> AnywhereRole {
    AnywhereRole::new(ANCHOR, PROFILE, ROLE, "/pki/cert.pem", "~/key.pem")
}

fn load(world: &World, service: &Service, role: AnywhereRole) -> Result<Credentials, Error> {
    let context = world.context().with_http(service.clone());
    block_on(RolesAnywhere::new(context, Options::default(), role).provide())
}

fn certificate(serial: u64) -> (rcgen::Certificate, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["machine".to_owned()]).unwrap();
    parameters.serial_number = Some(serial.into());
    (parameters.self_signed(&key).unwrap(), key)
}

#[test]
fn a_session_is_signed_for_with_an_ecdsa_key_and_a_chain() {
    let (certificate, key) = certificate(0x1_0000_0001);
    let (intermediate, _) = self::certificate(7);
    let world = World::new()
        .file("/pki/cert.pem", certificate.pem())
        .file("/pki/chain.pem", format!("{}{}", intermediate.pem(), intermediate.pem()))
        .file("/home/user/key.pem", key.serialize_pem());
    let service = service(
        "AWS4-X509-ECDSA-SHA256",
        &ECDSA_P256_SHA256_ASN1,
        rcgen::PublicKeyData::der_bytes(&key).to_vec(),
    );
    let role = role()
        .with_intermediates("/pki/chain.pem")
        .with_duration(Duration::from_secs(900))
        .with_session_name("build");
    let credentials = load(&world, &service, role).unwrap();
    assert_eq!(credentials.access_key_id, "ASIAANYWHERE");
    assert_eq!(credentials.source, Source::RolesAnywhere);
    assert_eq!(credentials.account_id.as_deref(), Some("123456789012"));
    let seen = service.seen.lock().unwrap();
    assert!(service.accepts(&seen[0], "4294967297"), "{:?}", seen[0]);
    assert_eq!(seen[0].uri(), "https://rolesanywhere.eu-west-1.amazonaws.com/sessions");
    let sent = &seen[0].headers()["x-amz-x509"];
    assert_eq!(STANDARD.decode(sent).unwrap(), certificate.der().to_vec());
    let chain = STANDARD.encode(intermediate.der());
    assert_eq!(seen[0].headers()["x-amz-x509-chain"], format!("{chain},{chain}"));
    let body: serde_json::Value = serde_json::from_slice(seen[0].body()).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "durationSeconds": 900, "profileArn": PROFILE, "roleArn": ROLE, "trustAnchorArn": ANCHOR,
            "roleSessionName": "build",
        })
    );
}

/// Keys made by OpenSSL: RSA in PKCS #8 and PKCS #1, ECDSA in SEC 1.
#[test]
fn keys_of_openssl_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let words = arguments.split(' ');
        let output = Command::new("openssl").args(words).current_dir(folder.path()).output();
        output.ok().filter(|output| output.status.success())
    };
    if openssl("version").is_none() {
        test_support::left_out("Roles Anywhere with OpenSSL's keys", "no openssl");
        return;
    }
    for (make, convert) in [
        ("genpkey -algorithm RSA -out key.pem", ""),
        ("genrsa -traditional -out key.pem 3072", "traditional"),
        ("ecparam -name prime256v1 -genkey -out key.pem", "sec1"),
    ] {
        openssl(make).unwrap_or_else(|| panic!("{make}"));
        openssl("req -new -x509 -key key.pem -subj /CN=m -set_serial 77 -out cert.pem").unwrap();
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let label = match convert {
            "" => "BEGIN PRIVATE KEY",
            "sec1" => "BEGIN EC PRIVATE KEY",
            _ => "BEGIN RSA PRIVATE KEY",
        };
        assert!(text("key.pem").contains(label), "{make}");
        // The form of the public key that ring takes: the content of the bit string at the end of
        // its DER.
        let ec = convert == "sec1";
        let der = match ec {
            true => openssl("pkey -in key.pem -pubout -outform DER").unwrap().stdout,
            false => openssl("rsa -in key.pem -RSAPublicKey_out -outform DER").unwrap().stdout,
        };
        let public = if ec { der[der.len() - 65..].to_vec() } else { der };
        let service = match ec {
            true => service("AWS4-X509-ECDSA-SHA256", &ECDSA_P256_SHA256_ASN1, public),
            false => service("AWS4-X509-RSA-SHA256", &RSA_PKCS1_2048_8192_SHA256, public),
        };
        let world = World::new()
            .file("/pki/cert.pem", text("cert.pem"))
            .file("/home/user/key.pem", text("key.pem"));
        load(&world, &service, role()).unwrap_or_else(|error| panic!("{make}: {error:?}"));
        assert!(service.accepts(&service.seen.lock().unwrap()[0], "77"), "{make}");
    }
}

#[test]
fn files_and_settings_that_cannot_serve_are_refused_before_any_call() {
    let (certificate, key) = certificate(1);
    let (_, another) = self::certificate(1);
    let service =
        service("", &ECDSA_P256_SHA256_ASN1, rcgen::PublicKeyData::der_bytes(&key).to_vec());
    let check = |cert: String, key: String, role: AnywhereRole, problem: &str| {
        let world = World::new().file("/pki/cert.pem", cert).file("/home/user/key.pem", key);
        let error = load(&world, &service, role).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        assert!(error.report().contains(problem), "{}", error.report());
        assert!(service.seen.lock().unwrap().is_empty());
    };
    let (pem, secret) = (certificate.pem(), key.serialize_pem());
    check(pem.clone(), another.serialize_pem(), role(), "not that of the certificate");
    check(String::new(), secret.clone(), role(), "/pki/cert.pem: no certificate");
    check(pem.clone(), pem.clone(), role(), "no private key in PEM");
    let mut elsewhere = role();
    elsewhere.profile_arn = PROFILE.replace("eu-west-1", "us-east-1");
    check(pem.clone(), secret.clone(), elsewhere, "different regions");
    let mut gone = role();
    gone.private_key = "/nowhere.pem".into();
    check(pem, secret, gone, "/nowhere.pem");
}

#[test]
fn a_helper_command_is_read() {
    let line = format!(
        "/opt/aws_signing_helper credential-process --certificate /c.pem --private-key=/k.pem \
         --trust-anchor-arn {ANCHOR} --profile-arn {PROFILE} --role-arn {ROLE} --session-duration 900 \
         --intermediates '/a b.pem' --role-session-name me"
    );
    let role = AnywhereRole::from_helper_command(&line).unwrap();
    assert_eq!(role.certificate.to_str(), Some("/c.pem"));
    assert_eq!(role.private_key.to_str(), Some("/k.pem"));
    assert_eq!(role.intermediates.as_ref().unwrap().to_str(), Some("/a b.pem"));
    assert_eq!(role.duration, Some(Duration::from_secs(900)));
    assert_eq!(role.session_name.as_deref(), Some("me"));
    for (bad, problem) in [
        ("vault read".to_owned(), "another command"),
        (line.replace("--role-arn", "--no-such"), "--no-such is not known"),
        (line.replace("--session-duration 900", "--session-duration x"), "no number"),
        (line.replace("--private-key=/k.pem", ""), "--private-key is missing"),
        (format!("{line} --no-verify-ssl"), "--no-verify-ssl is not known"),
    ] {
        let error = AnywhereRole::from_helper_command(&bad).unwrap_err();
        assert!(error.report().contains(problem), "{}", error.report());
    }
}

#[test]
fn no_secret_is_shown() {
    let (certificate, key) = certificate(1);
    let secret = key.serialize_pem();
    let world =
        World::new().file("/pki/cert.pem", certificate.pem()).file("/home/user/key.pem", secret);
    let context = world.context();
    let provider = RolesAnywhere::new(context, Options::default(), role());
    let inner = key.serialize_pem().lines().nth(1).unwrap().to_owned();
    assert!(!format!("{provider:?}").contains(&inner));
}
