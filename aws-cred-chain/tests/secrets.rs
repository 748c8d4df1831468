//! No secret is in any log, error, trace or `Debug` output. Every source has a secret of its own,
//! and all output is searched for it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use aws_cred_chain::files::{Dialect, FileKind, Profiles, SharedFile};
use aws_cred_chain::memory::MapEnv;
use aws_cred_chain::sign::{Signer, Unsigned};
use aws_cred_chain::testing::{Fault, Role, World};
use aws_cred_chain::{
    AssumeRole, Cache, Chain, Command, CommandOutput, Credentials, MfaSession, Options,
    ProvideCredentials, Secret, block_on, caller_identity, cli_cache, parse_process_output,
};

const CONFIG: &str = "/home/user/.aws/config";
const ROLE: &str = "arn:aws:iam::123456789012:role/Reader";
/// A text that every secret of these tests contains.
const MARK: &str = "hunter2";

#[derive(Clone, Default)]
struct Logs(Arc<Mutex<String>>);

impl tracing::field::Visit for Logs {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        write!(self.0.lock().unwrap(), " {field}={value:?}").unwrap();
    }
}

impl tracing::Subscriber for Logs {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Returns all output about a chain in `world`: log, plan, trace, credentials or error.
fn shown(world: &World, options: &Options) -> String {
    let logs = Logs::default();
    let mut text = tracing::subscriber::with_default(logs.clone(), || {
        let chain = Chain::new(world.context(), options.clone());
        let mut text = format!("{:?} ", block_on(chain.plan()));
        if let Ok(plan) = block_on(chain.plan()) {
            write!(text, "{plan}").unwrap();
        }
        for _ in 0..3 {
            match block_on(chain.resolve()) {
                Ok(found) => {
                    let keys = &found.credentials;
                    let identity = block_on(caller_identity(&world.context(), options, keys));
                    write!(text, "{found:?} {} {identity:?}", found.trace).unwrap();
                }
                Err(error) => {
                    let (trace, report) = (&error.trace, error.error.report());
                    write!(text, "{error:?} {error} {report} {trace}").unwrap();
                }
            }
        }
        let cache = Cache::new(world.context(), chain.clone());
        write!(text, "{:?} {cache:?} {:?}", block_on(cache.credentials()), chain.options())
            .unwrap();
        write!(text, "{:?} {chain:?} {world:?} {:?}", block_on(chain.token()), world.context())
            .unwrap();
        write!(text, "{:?} {:?}", world.commands().calls(), world.prompt().questions()).unwrap();
        write!(text, "{:?}", world.services().seen()).unwrap();
        text
    });
    text.push_str(&logs.0.lock().unwrap());
    text
}

/// The sources. Each is tested with a service that answers, refuses, breaks and sends nonsense.
fn worlds() -> Vec<(&'static str, &'static str, World)> {
    let base = "[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = hunter2-base\n\
                aws_session_token = hunter2-token\n";
    let role =
        |more: &str| format!("[default]\nrole_arn = {ROLE}\nsource_profile = base\n{more}{base}");
    let user = || World::new().user("AKIDBASE", "hunter2-base", "123456789012");
    let env = user()
        .env("AWS_ACCESS_KEY_ID", "AKIDBASE")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2-base")
        .env("AWS_SESSION_TOKEN", "hunter2-token");
    let half = World::new().env("AWS_SECRET_ACCESS_KEY", "hunter2-base");
    let mfa = user().file(CONFIG, role("mfa_serial = device\nexternal_id = x\n"));
    let accepted = Role::new(ROLE).with_mfa("device", "hunter2").with_external_id("x");
    mfa.services().add_role(accepted);
    for _ in 0..20 {
        mfa.prompt().put("hunter2");
    }
    let web = World::new()
        .env("AWS_ROLE_ARN", ROLE)
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")
        .file("/token", "hunter2.web.token");
    web.services().add_role(Role::new(ROLE).with_web_identity("hunter2.web.token"));
    let sso = "[default]\nsso_session = dev\nsso_account_id = 123456789012\nsso_role_name = R\n\
               [sso-session dev]\nsso_region = us-east-1\nsso_start_url = https://x.example/start\n";
    let token = |end: &str| {
        format!(
            r#"{{"accessToken": "hunter2-access", "expiresAt": "{end}", "refreshToken": "hunter2-refresh",
                "clientId": "c", "clientSecret": "hunter2-client", "region": "us-east-1",
                "registrationExpiresAt": "2099-01-01T00:00:00Z", "startUrl": "https://x.example/start"}}"#
        )
    };
    // The file's name is the SHA-1 of `dev`.
    let file = "/home/user/.aws/sso/cache/34c6fceca75e456f25e7e99531e2425c6c1de443.json";
    let sso = |end: &str| {
        let world = World::new().file(CONFIG, sso).file(file, token(end));
        world.services().set_sso("hunter2-access", "hunter2-refresh");
        world
    };
    let process = World::new()
        .file(CONFIG, "[default]\ncredential_process = tool --token hunter2-argument\n");
    let output = r#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hunter2-secret",
        "SessionToken": "hunter2-token", "Expiration": "hunter2"}"#;
    process.commands().put("tool", CommandOutput::new(0, output));
    let container = World::new()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://u:hunter2@host/p?key=hunter2#hunter2")
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hunter2-authorization");
    let pod = World::new()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials")
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/pod")
        .file("/pod", "hunter2-authorization");
    pod.services().set_container(Some("hunter2-authorization"));
    let metadata = World::new();
    metadata.services().set_metadata(Some("web"), 1, 1, false);
    let broken = World::new().file(CONFIG, "[default]\naws_secret_access_key hunter2\n");
    let login = World::new().file(CONFIG, "[default]\nlogin_session = arn:aws:iam::1:user/u\n");
    vec![
        ("environment", "sts", env),
        ("half of the environment", "sts", half),
        ("keys", "sts", user().file(CONFIG, base.replace("profile base", "default"))),
        ("role", "sts", user().role(ROLE).file(CONFIG, role(""))),
        ("MFA", "sts", mfa),
        ("web identity", "sts", web),
        ("SSO", "sso", sso("2026-02-01T00:00:00Z")),
        ("SSO renewed", "sso_oidc", sso("2025-02-01T00:00:00Z")),
        ("process", "sts", process),
        ("container", "host", container),
        ("pod", "container", pod),
        ("metadata", "metadata", metadata),
        ("a broken file", "sts", broken),
        ("login", "signin", login),
    ]
}

fn check(what: &str, text: &str) {
    for secret in [MARK, "issued-secret-"] {
        if let Some(at) = text.find(secret) {
            let near = text.get(at.saturating_sub(200)..(at + 60).min(text.len()));
            panic!("{what}: {secret} is shown: {near:?}");
        }
    }
}

#[test]
fn no_source_shows_a_secret_whatever_its_service_does() {
    let answer = r#"{"message": "hunter2", "code": "x", "AccessKeyId": "A", "SecretAccessKey": "hunter2",
        "Token": "hunter2", "Expiration": "hunter2", "error": "x"}"#;
    let xml = "<R><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>hunter2</SecretAccessKey>\
               <SessionToken>hunter2</SessionToken><Expiration>hunter2</Expiration></Credentials></R>";
    let faults = [
        Fault::Refused,
        Fault::Silent,
        Fault::Status(500),
        Fault::Status(403),
        Fault::Body(answer.to_owned()),
        Fault::Body(answer.replace('}', "")),
        Fault::Body(xml.to_owned()),
        Fault::Huge,
    ];
    for (name, service, world) in worlds() {
        let mut options = Options::default();
        options.credentials = None;
        check(name, &shown(&world, &options));
        for fault in &faults {
            world.services().fault(service, fault.clone());
            check(&format!("{name}, {fault:?}").replace(MARK, ""), &{
                // The world's `Debug` shows the fault, which is the test's own text.
                let text = shown(&world, &options);
                text.replace(&format!("{fault:?}"), "")
            });
        }
    }
}

#[test]
fn no_public_type_shows_a_secret() {
    let keys = Credentials::new("AKID", "hunter2").with_session_token("hunter2-token");
    let world = World::new().user("AKID", "hunter2", "1").file("/f", "hunter2").env("X", "hunter2");
    let (context, options) = (world.context(), Options::default().with_credentials(keys.clone()));
    let role = aws_cred_chain::Role::new(ROLE);
    let assume = AssumeRole::new(context.clone(), options.clone(), keys.clone(), role);
    let session = MfaSession::new(context.clone(), options.clone(), keys.clone(), "device", None);
    world.prompt().put("hunter2");
    let sessions = (block_on(assume.provide()), block_on(session.provide()));
    let file = SharedFile::new(
        FileKind::Config,
        "f",
        "[default]\naws_secret_access_key=hunter2\n\
        aws_access_key_id=A\ncredential_process = x hunter2\n",
    );
    let profiles = Profiles::parse(std::slice::from_ref(&file), Dialect::Sdk).unwrap();
    let plan = aws_cred_chain::plan::plan(&profiles, "default");
    let headers = [("host", "example.com"), ("x-secret", "hunter2")];
    let unsigned = Unsigned::new("GET", "/", "token=hunter2", &headers, b"hunter2");
    let signer = Signer::new(&keys, "r", "s", std::time::SystemTime::UNIX_EPOCH);
    let signed = signer.sign_headers(&unsigned);
    let output = CommandOutput::new(0, "hunter2");
    let command = Command::new("tool", vec!["hunter2".to_owned()]);
    let bad = parse_process_output(
        br#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hunter2"}"#,
    );
    let cached = cli_cache::parse(
        br#"{"Credentials": {"AccessKeyId": "A", "SecretAccessKey": "hunter2",
        "SessionToken": "hunter2", "Expiration": "2099-01-01T00:00:00Z"}}"#,
    );
    let service_role = Role::new(ROLE).with_mfa("d", "hunter2").with_web_identity("hunter2");
    let file_data = aws_cred_chain::FileData::new(b"hunter2".to_vec());
    let text = format!(
        "{keys:?} {:?} {world:?} {context:?} {options:?} {assume:?} {session:?} {sessions:?} {file:?} \
         {profiles:?} {plan:?} {unsigned:?} {signer:?} {signed:?} {output:?} {command:?} {bad:?} {cached:?} \
         {service_role:?} {file_data:?} {:?}",
        Secret::from("hunter2"),
        MapEnv::new([("A", "hunter2")]),
    );
    check("Debug", &text);
    // The bytes of the secret as `Debug` shows them.
    assert!(!text.contains("104, 117, 110, 116, 101, 114, 50"), "{text}");
}
