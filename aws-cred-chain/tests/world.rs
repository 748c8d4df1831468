//! Chains in the world of the test kit: the requests of each source, and the errors of each
//! failure.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use aws_cred_chain::testing::{Fault, Role, World};
use aws_cred_chain::{
    AssumeRole, Cache, Chain, CliCache, Clock, CommandOutput, Credentials, Error, MfaSession,
    Options, Origin, ProvideCredentials, Resolved, Source, Unresolved, block_on, region,
};

const ROLE: &str = "arn:aws:iam::123456789012:role/Reader";
const SERIAL: &str = "arn:aws:iam::123456789012:mfa/u";
const CONFIG: &str = "/home/user/.aws/config";
const BASE: &str =
    "[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n";

fn resolve(world: &World, options: Options) -> Result<Resolved, Box<Unresolved>> {
    block_on(Chain::new(world.context(), options).resolve())
}

fn error(world: &World) -> Error {
    resolve(world, Options::default()).unwrap_err().error
}

fn config(text: &str) -> World {
    World::new()
        .user("AKIDBASE", "base-secret", "123456789012")
        .file(CONFIG, format!("{BASE}{text}"))
}

#[test]
fn roles_are_assumed_with_valid_signatures() {
    let world = config(&format!(
        "[default]\nregion = eu-west-1\nrole_arn = {ROLE}\nsource_profile = base\nexternal_id = x1\n"
    ));
    world.services().add_role(Role::new(ROLE).with_external_id("x1"));
    let resolved = resolve(&world, Options::default()).unwrap();
    assert_eq!(resolved.credentials.source, Source::AssumeRole);
    assert_eq!(resolved.credentials.account_id.as_deref(), Some("123456789012"));
    let text = resolved.trace.to_string();
    assert!(text.contains(&format!("role {ROLE} [{CONFIG}:6]")), "{text}");
    // The fake refuses a wrong secret, so it checks the signature.
    let world = World::new()
        .user("AKIDBASE", "another-secret", "123456789012")
        .role(ROLE)
        .file(CONFIG, format!("{BASE}[default]\nrole_arn = {ROLE}\nsource_profile = base\n"));
    let Error::Denied { code, .. } = error(&world) else { panic!("not denied") };
    assert_eq!(code, "SignatureDoesNotMatch");
}

#[test]
fn a_role_with_explicit_base_credentials_is_cached_and_renewed() {
    let world = World::new().user("AKIDHOST", "host-secret", "123456789012").role(ROLE);
    let base = Credentials::new("AKIDHOST", "host-secret");
    let role = aws_cred_chain::Role::new(ROLE).with_session_name("function");
    let provider = AssumeRole::new(world.context(), Options::default(), base, role);
    let cache = Cache::new(world.context(), provider);
    let first = block_on(cache.credentials()).unwrap();
    assert!(first.session_token.is_some());
    for _ in 0..6 {
        world.clock().advance(Duration::from_secs(20 * 60));
        let kept = block_on(cache.credentials()).unwrap();
        assert!(kept.expires_at.unwrap() > world.clock().now());
    }
    let renewed = world.services().count("AssumeRole");
    assert!((3..=5).contains(&renewed), "{renewed} sessions in two hours");
}

#[test]
fn an_mfa_code_is_asked_once_and_the_session_is_kept_in_the_cli_cache() {
    let world = config(&format!(
        "[default]\nrole_arn = {ROLE}\nsource_profile = base\nmfa_serial = {SERIAL}\n"
    ));
    world.services().add_role(Role::new(ROLE).with_mfa(SERIAL, "123456"));
    let unanswered = error(&world);
    assert!(matches!(unanswered, Error::Failed { .. }), "{unanswered:?}");
    world.prompt().put("123456");
    let first = resolve(&world, Options::default()).unwrap().credentials;
    assert_eq!(world.prompt().questions()[1].mfa_serial, SERIAL);
    let again = resolve(&world, Options::default()).unwrap();
    assert_eq!(again.credentials.session_token, first.session_token);
    assert!(again.trace.to_string().contains(".aws/cli/cache"), "{}", again.trace);
    assert_eq!(world.prompt().questions().len(), 2);
    // Treated as expired 15 minutes early, as in botocore.
    world.clock().advance(Duration::from_secs(46 * 60));
    world.prompt().put("123456");
    assert_ne!(resolve(&world, Options::default()).unwrap().credentials, first);
    // With `CliCache::Off` the cache is not read.
    let mut off = Options::default();
    off.cli_cache = CliCache::Off;
    assert!(resolve(&world, off).is_err());
    world.prompt().put("654321");
    world.clock().advance(Duration::from_secs(3600));
    assert!(matches!(error(&world), Error::Denied { .. }));
    world.prompt().put("12; 34");
    assert!(matches!(error(&world), Error::Failed { .. }));
}

#[test]
fn a_user_opens_a_session_with_a_code() {
    let world = config(&format!(
        "[default]\nsource_profile = base\nmfa_serial = {SERIAL}\naws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n"
    ));
    world.prompt().put("123456");
    let mut options = Options::default();
    options.mfa_session = true;
    let session = resolve(&world, options).unwrap().credentials;
    assert_eq!(session.source, Source::SessionToken);
    assert_eq!(world.services().count("GetSessionToken"), 1);
    world.prompt().put("123456");
    let base = Credentials::new("AKIDBASE", "base-secret");
    let provider = MfaSession::new(world.context(), Options::default(), base, SERIAL, None);
    assert!(block_on(provider.provide()).unwrap().session_token.is_some());
}

#[test]
fn the_cache_file_of_the_aws_cli_is_read() {
    let folder = test_support::conformance_dir().join("awscli-cache");
    if !folder.exists() {
        return test_support::left_out("conformance awscli-cache", "the data is not there");
    }
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    for entry in std::fs::read_dir(folder.join("cli-cache")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let content = text(&format!("cli-cache/{name}"));
        // The clock of the world is before the session's expiry.
        let world = World::new()
            .file(CONFIG, text("config"))
            .file(format!("/home/user/.aws/cli/cache/{name}"), content.clone());
        let found = resolve(&world, Options::default().with_profile("mfa")).unwrap().credentials;
        let value: serde_json::Value = serde_json::from_str(&content).unwrap();
        assert_eq!(value["Credentials"]["AccessKeyId"], found.access_key_id.as_str());
        assert_eq!(found.account_id.as_deref(), value["Credentials"]["AccountId"].as_str());
        assert!(world.services().seen().is_empty() && world.prompt().questions().is_empty());
    }
}

fn sso_world() -> World {
    let session = "[default]\nsso_session = dev\nsso_account_id = 123456789012\nsso_role_name = R\n\
                   [sso-session dev]\nsso_region = us-east-1\nsso_start_url = https://x.example/start\n";
    let world = World::new().file(CONFIG, session);
    world.services().set_sso("access-0", "refresh-0");
    world
}

/// The file's name is the SHA-1 of `dev`.
const SSO_FILE: &str = "/home/user/.aws/sso/cache/34c6fceca75e456f25e7e99531e2425c6c1de443.json";

fn sso_token(expires: &str) -> String {
    format!(
        r#"{{"accessToken": "access-0", "expiresAt": "{expires}", "refreshToken": "refresh-0",
            "clientId": "c", "clientSecret": "s", "registrationExpiresAt": "2099-01-01T00:00:00Z",
            "region": "us-east-1", "startUrl": "https://x.example/start"}}"#
    )
}

#[test]
fn sso_tokens_are_used_renewed_or_asked_for() {
    let world = sso_world();
    let Error::LoginRequired { command, .. } = error(&world) else { panic!("no login asked for") };
    assert_eq!(command, "aws sso login");
    let world = sso_world().file(SSO_FILE, sso_token("2026-02-01T00:00:00Z"));
    let found = resolve(&world, Options::default()).unwrap().credentials;
    assert_eq!((found.source, found.account_id.as_deref()), (Source::Sso, Some("123456789012")));
    assert_eq!(world.services().count("/token"), 0);
    // An expired token is renewed and written to the AWS CLI's cache.
    let world = sso_world().file(SSO_FILE, sso_token("2025-02-01T00:00:00Z"));
    resolve(&world, Options::default()).unwrap();
    let written = String::from_utf8(world.files().content(SSO_FILE).unwrap()).unwrap();
    assert!(written.contains("access-1") && written.contains("2026-01-01T08:00:00Z"), "{written}");
    // A new login takes effect at once, whatever was loaded before.
    world.services().set_sso("access-0", "refresh-0");
    assert!(matches!(error(&world), Error::LoginRequired { .. }));
    world.files().put(SSO_FILE, sso_token("2026-02-01T00:00:00Z"));
    resolve(&world, Options::default()).unwrap();
    // A refresh token that is no longer accepted.
    let world = sso_world().file(SSO_FILE, sso_token("2025-02-01T00:00:00Z"));
    world.services().set_sso("access-9", "refresh-9");
    assert!(matches!(error(&world), Error::LoginRequired { .. }));
}

#[test]
fn login_sessions_are_read() {
    let session = "arn:aws:iam::123456789012:user/u";
    let config = format!("[default]\nlogin_session = {session}\n");
    let world = World::new().file(CONFIG, config.clone());
    let Error::LoginRequired { command, .. } = error(&world) else { panic!("no login asked for") };
    assert_eq!(command, "aws login --profile default");
    // The file's name is the SHA-256 of the session's ARN.
    let name = aws_cred_chain::login_cache_key(session);
    let world = World::new().file(CONFIG, config).file(
        format!("/home/user/.aws/login/cache/{name}.json"),
        r#"{"accessToken": {"accessKeyId": "ASIA1", "secretAccessKey": "s", "sessionToken": "t",
            "accountId": "123456789012", "expiresAt": "2026-01-01T01:00:00Z"}, "tokenType": "aws_sigv4"}"#,
    );
    assert_eq!(resolve(&world, Options::default()).unwrap().credentials.source, Source::Login);
    world.clock().advance(Duration::from_secs(3601));
    assert!(matches!(error(&world), Error::LoginRequired { .. }));
}

#[cfg(feature = "login")]
#[test]
fn login_sessions_are_renewed_with_a_proof_of_possession() {
    let session = "arn:aws:iam::123456789012:user/u";
    let path =
        format!("/home/user/.aws/login/cache/{}.json", aws_cred_chain::login_cache_key(session));
    let pkcs8 = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let body: String = pkcs8.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
    // PKCS #8 contains the key in the form of `aws login`, the structure of RFC 5915.
    let at =
        der.windows(5).position(|window| window == [0x02, 0x01, 0x01, 0x04, 0x20]).unwrap() - 2;
    let sec1 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &der[at..]);
    let sec1 = format!("-----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----\n");
    for pem in [pkcs8, sec1] {
        let file = serde_json::json!({
            "accessToken": {"accessKeyId": "ASIA1", "secretAccessKey": "s", "sessionToken": "t",
                "accountId": "123456789012", "expiresAt": "2025-12-31T23:00:00Z"},
            "clientId": "arn:aws:signin:::devtools/same-device", "refreshToken": "refresh-0",
            "dpopKey": pem, "signInRegion": "us-east-2", "tokenType": "aws_sigv4",
        });
        let config = format!("[default]\nlogin_session = {session}\n");
        let world = World::new().file(CONFIG, config).file(&path, file.to_string());
        world.services().set_sign_in("refresh-0");
        let found = resolve(&world, Options::default()).unwrap().credentials;
        assert_eq!(
            (found.source, found.account_id.as_deref()),
            (Source::Login, Some("123456789012"))
        );
        // The written credentials are used, then renewed with the new refresh token.
        assert_eq!(resolve(&world, Options::default()).unwrap().credentials, found);
        world.clock().advance(Duration::from_secs(800));
        assert_ne!(resolve(&world, Options::default()).unwrap().credentials, found);
        assert_eq!(world.services().count("/v1/token"), 2);
        world.services().set_sign_in("another");
        world.clock().advance(Duration::from_secs(3600));
        assert!(matches!(error(&world), Error::LoginRequired { .. }));
    }
}

#[test]
fn containers_ask_with_their_token() {
    let world = World::new()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials")
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/var/run/token")
        .file("/var/run/token", "pod-token\n");
    world.services().set_container(Some("pod-token"));
    assert_eq!(resolve(&world, Options::default()).unwrap().credentials.source, Source::Container);
    world.services().set_container(Some("another"));
    assert!(matches!(error(&world), Error::Denied { .. }));
    world.files().put("/var/run/token", "a\r\nb: c");
    assert!(matches!(error(&world), Error::Invalid { .. }));
    for (uri, good) in [
        ("http://127.0.0.1:9/x", true),
        ("http://[::1]/x", true),
        ("http://10.0.0.1/x", false),
        ("http://169.254.170.2@evil.example/x", false),
        ("http://evil.example/169.254.170.2", false),
        ("ftp://169.254.170.2/x", false),
    ] {
        let world = World::new().env("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri);
        let found = aws_cred_chain::container_endpoint(&world.context());
        assert_eq!(found.is_ok(), good, "{uri}: {found:?}");
    }
}

#[test]
fn the_metadata_service_by_version_two_and_one() {
    let world = World::new();
    let Error::NotConfigured { attempts } = error(&world) else {
        panic!("something is configured")
    };
    assert!(attempts.to_string().contains("connection refused"), "{attempts}");
    world.services().set_metadata(Some("web"), 1, 1, false);
    assert_eq!(
        resolve(&world, Options::default()).unwrap().credentials.source,
        Source::InstanceMetadata
    );
    let found = block_on(region(&world.context(), &Options::default(), true)).unwrap();
    assert_eq!(found, Some(("us-west-2".to_owned(), Origin::Metadata)));
    // The caller is one hop too far away. The token's answer never arrives, and the wait ends.
    world.services().set_metadata(Some("web"), 1, 2, false);
    let before = world.clock().monotonic();
    assert!(matches!(error(&world), Error::NotConfigured { .. }));
    let took = world.clock().monotonic() - before;
    assert!(took <= Duration::from_millis(1100), "{took:?}");
    world.services().set_metadata(None, 1, 1, false);
    assert!(matches!(error(&world), Error::NotConfigured { .. }));
    let disabled = World::new().env("AWS_EC2_METADATA_DISABLED", "true");
    disabled.services().set_metadata(Some("web"), 1, 1, false);
    assert!(matches!(error(&disabled), Error::NotConfigured { .. }));
    assert!(disabled.services().seen().is_empty());
}

#[test]
fn a_broken_source_stops_the_chain_and_an_absent_one_does_not() {
    let world = World::new().env("AWS_ACCESS_KEY_ID", "AKID");
    world.services().set_metadata(Some("web"), 1, 1, false);
    assert!(matches!(error(&world), Error::Invalid { .. }));
    let world = World::new().env("AWS_PROFILE", "typo");
    world.services().set_metadata(Some("web"), 1, 1, false);
    let wrong = error(&world);
    assert!(
        wrong.to_string().contains("typo") && wrong.to_string().contains("AWS_PROFILE"),
        "{wrong}"
    );
    let world = config("[default]\nregion = us-east-1\n");
    world.services().set_metadata(Some("web"), 1, 1, false);
    assert_eq!(
        resolve(&world, Options::default()).unwrap().credentials.source,
        Source::InstanceMetadata
    );
}

/// A secret in a command line or a URL is not shown either.
#[test]
fn secrets_in_commands_and_urls_are_not_shown() {
    let world = config("[default]\ncredential_process = tool --token hunter2\n")
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://u:hunter2@host/p?key=hunter2");
    let chain = Chain::new(world.context(), Options::default());
    let plan = block_on(chain.plan()).unwrap();
    let unresolved = block_on(chain.resolve()).unwrap_err();
    let container =
        resolve(&world, Options::default().with_profile("base").without(Source::ConfigFile));
    let other = World::new()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://u:hunter2@host/p?key=hunter2");
    let asked = resolve(&other, Options::default()).unwrap_err();
    let shown = format!(
        "{plan} {plan:?} {unresolved:?} {} {container:?} {asked:?} {}",
        unresolved.trace, asked.trace
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("https://host/p"), "{shown}");
}

#[test]
fn processes_are_split_as_the_cli_does_and_their_output_is_checked() {
    let world = config(
        "[default]\ncredential_process = \"/opt/my tool\" --for 'a b'\naws_account_id = 1\n",
    );
    let put = |text: &str| world.commands().put("/opt/my tool", CommandOutput::new(0, text));
    put(
        r#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "s", "Expiration": "2027-01-01T00:00:00Z"}"#,
    );
    let found = resolve(&world, Options::default()).unwrap().credentials;
    assert_eq!(found.account_id.as_deref(), Some("1"));
    assert_eq!(world.commands().calls()[0].arguments, ["--for", "a b"]);
    for bad in [
        "",
        "[]",
        "{}",
        "not json",
        r#"{"Version": 2}"#,
        r#"{"Version": 1}"#,
        r#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "hunter2", "Expiration": "soon"}"#,
    ] {
        put(bad);
        let error = error(&world);
        assert!(matches!(error, Error::Failed { .. }), "{bad}: {error:?}");
        assert!(!error.report().contains("hunter2"));
    }
    put(&"x".repeat(1 << 20));
    assert!(matches!(error(&world), Error::Failed { .. }));
    world.commands().put("/opt/my tool", CommandOutput::new(3, ""));
    assert!(error(&world).report().contains("code 3"));
    let gone = config("[default]\ncredential_process = nowhere\n");
    assert!(matches!(error(&gone), Error::Invalid { .. }));
    let plan = block_on(Chain::new(gone.context(), Options::default()).plan()).unwrap();
    assert!(plan.to_string().contains("not there"), "{plan}");
}

#[test]
fn a_plan_says_without_network_what_is_wrong() {
    let world = World::new().file(
        CONFIG,
        "[default]\nmfa_serial = x\nsource_profil = y\n[profile with blank]\nregion = a\n[typo]\n\
         [profile a]\nrole_arn = r\nsource_profile = b\n[profile b]\nrole_arn = r\nsource_profile = a\n",
    );
    let plan = block_on(Chain::new(world.context(), Options::default()).plan()).unwrap();
    let text = plan.to_string();
    for expected in [
        "config:2: warning: mfa_serial in profile default does nothing without role_arn",
        "config:3: warning: unknown key source_profil in profile default; did you mean source_profile?",
        "config:4: warning: section [profile with blank] is ignored",
        "config:6: warning: section [typo] is ignored; did you mean [profile typo]?",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let a = Options::default().with_profile("a");
    let plan = block_on(Chain::new(world.context(), a).plan()).unwrap();
    assert!(plan.to_string().contains("infinite loop: a -> b -> a"), "{plan}");
    assert!(world.services().seen().is_empty());
    // The AWS CLI reads this value together with its comment.
    let world = World::new()
        .file(CONFIG, "[default]\nregion = us-east-1 # home\n[profile \"two words\"]\n");
    let plan =
        block_on(Chain::new(world.context(), Options::default()).plan()).unwrap().to_string();
    assert!(plan.contains("another value of region"), "{plan}");
    assert!(plan.contains("only the AWS CLI reads profile \"two words\""), "{plan}");
}

#[test]
fn services_that_misbehave_end_in_a_typed_error_in_bounded_time() {
    let faults = [
        Fault::Refused,
        Fault::Silent,
        Fault::Slow(Duration::from_secs(3600)),
        Fault::Status(500),
        Fault::Status(204),
        Fault::Status(301),
        Fault::Status(418),
        Fault::Body(String::new()),
        Fault::Body("<".repeat(100_000)),
        Fault::Body(
            "<AssumeRoleResponse><Credentials></Credentials></AssumeRoleResponse>".to_owned(),
        ),
        Fault::Body("[".repeat(100_000)),
        Fault::Body("\u{fffd}\0".repeat(1000)),
        Fault::Huge,
    ];
    for fault in faults {
        let worlds = [
            ("sts", config(&format!("[default]\nrole_arn = {ROLE}\nsource_profile = base\n"))),
            ("sso", sso_world().file(SSO_FILE, sso_token("2026-02-01T00:00:00Z"))),
            ("sso_oidc", sso_world().file(SSO_FILE, sso_token("2025-02-01T00:00:00Z"))),
            ("container", World::new().env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")),
            ("metadata", World::new()),
        ];
        for (service, world) in worlds {
            world.services().fault(service, fault.clone());
            let before = world.clock().monotonic();
            let error = error(&world);
            let took = world.clock().monotonic() - before;
            assert!(took <= Duration::from_secs(21), "{service} {fault:?}: {took:?}");
            assert!(error.report().len() < 2000, "{service} {fault:?}: {error:?}");
        }
    }
}

#[test]
fn retries_get_over_a_short_outage() {
    let world =
        config(&format!("[default]\nrole_arn = {ROLE}\nsource_profile = base\n")).role(ROLE);
    world.services().fault("sts", Fault::Status(503));
    assert!(error(&world).is_retryable());
    assert_eq!(world.services().count("AssumeRole"), 3);
    world.services().repair("sts");
    assert!(resolve(&world, Options::default()).is_ok());
}

#[test]
fn a_chain_of_a_thousand_profiles_or_a_loop_is_refused() {
    let mut text = String::new();
    for n in 0..1000 {
        text.push_str(&format!("[profile p{n}]\nrole_arn = r\nsource_profile = p{}\n", n + 1));
    }
    let world = World::new().file(CONFIG, text).env("AWS_PROFILE", "p0");
    assert!(matches!(error(&world), Error::Invalid { .. }));
    let world = config(
        "[default]\nrole_arn = r\nsource_profile = x\n[profile x]\nrole_arn = r\nsource_profile = default\n",
    );
    assert!(error(&world).to_string().contains("infinite loop"));
}
