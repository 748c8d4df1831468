//! Comparison with the AWS CLI 2. For each input, the chain finds what the command finds, or
//! refuses what the command would accept and sign wrongly.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_cred_chain::files::Dialect;
use aws_cred_chain::memory::{MapEnv, MapFiles};
use aws_cred_chain::testing::{Fault, Role, World};
use aws_cred_chain::{
    BoxFuture, Chain, CliCache, CommandOutput, Context, Credentials, Error, FileData, HttpError,
    Options, ReadFile, Resolved, SendHttp, Source, block_on, cli_cache, region,
};
use bytes::Bytes;

const CONFIG: &str = "/home/user/.aws/config";
const CREDENTIALS: &str = "/home/user/.aws/credentials";

fn resolve(world: &World, options: Options) -> Result<Resolved, Error> {
    block_on(Chain::new(world.context(), options).resolve()).map_err(|it| it.error)
}

fn found(world: &World) -> Credentials {
    resolve(world, Options::default()).unwrap().credentials
}

/// Returns the settings of a profile with keys, of which the id is `id`.
fn keys(id: &str) -> String {
    format!("aws_access_key_id = {id}\naws_secret_access_key = SECRET\n")
}

#[test]
fn the_default_dialect_is_that_of_the_cli() {
    let check = |path: &str, profile: Option<&str>, text: &str| {
        let world = World::new().file(path, text);
        let mut options = Options::default();
        options.profile = profile.map(str::to_owned);
        let id = resolve(&world, options.clone()).map(|it| it.credentials.access_key_id);
        assert_eq!(id.unwrap(), "AKIA", "{text}");
        // The other dialect refuses the file. If its form is the reason, the error names this
        // dialect.
        let error = resolve(&world, options.with_dialect(Dialect::Sdk)).unwrap_err();
        assert!(error.to_string().contains("Dialect::Cli"), "{error}");
    };
    let keys = "aws_access_key_id = AKIA\naws_secret_access_key = S\n";
    check(
        CONFIG,
        Some("a"),
        "[profile a]\n   aws_access_key_id = AKIA\n   aws_secret_access_key = S\n",
    );
    check(
        CONFIG,
        None,
        &format!("[default]\ns3 =\n # quick\n max_concurrent_requests = 9\n{keys}"),
    );
    check(CONFIG, None, &format!("[default]\n{}", keys.replace(" =", ":")));
    check(CONFIG, Some("dev_Admin"), &format!("[profile \"dev_Admin\"]\n{keys}"));
    check(CREDENTIALS, Some("my own"), &format!("[my own]\n{keys}"));
}

#[test]
fn sso_sessions_may_have_quoted_names() {
    let text = "[default]\nsso_session = A B\nsso_account_id = 1\nsso_role_name = R\n\
                [sso-session 'A B']\nsso_region = us-east-1\nsso_start_url = https://x/start\n";
    let error = resolve(&World::new().file(CONFIG, text), Options::default()).unwrap_err();
    assert!(matches!(error, Error::LoginRequired { .. }), "{error:?}");
}

/// SSO settings without account and role give a token only. They do not stop other sources.
#[test]
fn a_token_alone_is_no_source_of_credentials() {
    for sso in ["sso_region = r\n", "sso_session = gone\n", "sso_start_url = u\nsso_region = r\n"] {
        let world = World::new().file(CONFIG, format!("[default]\n{sso}{}", keys("A")));
        assert_eq!(found(&world).access_key_id, "A", "{sso}");
        let error =
            resolve(&World::new().file(CONFIG, format!("[default]\n{sso}")), Options::default());
        assert!(matches!(error, Err(Error::Invalid { .. })), "{sso}");
    }
    // The session's section may hold settings that the profile lacks.
    let text = "[default]\nsso_session = s\nsso_account_id = 1\n\
                [sso-session s]\nsso_region = us-east-1\nsso_start_url = https://x/start\nsso_role_name = R\n";
    let error = resolve(&World::new().file(CONFIG, text), Options::default()).unwrap_err();
    assert!(matches!(error, Error::LoginRequired { .. }), "{error:?}");
}

#[test]
fn a_comment_or_a_second_line_never_becomes_part_of_a_secret() {
    let text = "[default]\naws_access_key_id = A\naws_secret_access_key = S\n  # old\nregion = eu-west-1\n";
    let world = World::new().file(CONFIG, text);
    assert_eq!(found(&world).secret_access_key.expose(), "S");
    let region = block_on(region(&world.context(), &Options::default(), false)).unwrap();
    assert_eq!(region.unwrap().0, "eu-west-1");
    for (text, line) in [
        ("[default]\naws_access_key_id = A\naws_secret_access_key = S\n  # old\n", 3),
        ("[default]\naws_access_key_id = A\naws_secret_access_key = S\n  more\n", 3),
        ("[default]\naws_access_key_id = A # mine\naws_secret_access_key = S\n", 2),
    ] {
        for dialect in [Dialect::Cli, Dialect::Sdk] {
            let world = World::new().file(CONFIG, text);
            match resolve(&world, Options::default().with_dialect(dialect)) {
                // The dialect treats the comment as one.
                Ok(found) => assert_eq!(found.credentials.secret_access_key.expose(), "S"),
                Err(error) => {
                    let shown = error.to_string();
                    assert!(shown.contains(&format!("config:{line}")), "{shown}");
                    assert!(!shown.contains("more") && !shown.contains("mine"), "{shown}");
                }
            }
        }
    }
}

#[test]
fn keys_token_and_account_are_of_one_file() {
    let world = World::new()
        .file(CREDENTIALS, format!("[default]\n{}", keys("A")))
        .file(CONFIG, "[default]\naws_session_token = STALE\naws_account_id = 9\n");
    let credentials = found(&world);
    assert_eq!((credentials.session_token, credentials.account_id), (None, None));
    // An incomplete pair in the file with precedence is an error, whatever the other file has.
    for config in [keys("B"), "aws_secret_access_key = S\n".to_owned()] {
        let world = World::new()
            .file(CREDENTIALS, "[default]\naws_access_key_id = A\n")
            .file(CONFIG, format!("[default]\n{config}"));
        let error = resolve(&world, Options::default()).unwrap_err();
        assert!(error.to_string().contains("half a pair"), "{error}");
    }
    // The config file's keys get its own token, although the credentials file replaces that token.
    let world = World::new()
        .file(CREDENTIALS, "[default]\naws_session_token = OTHER\n")
        .file(CONFIG, format!("[default]\n{}aws_session_token = OWN\n", keys("A")));
    let credentials = found(&world);
    assert_eq!(credentials.session_token.unwrap().expose(), "OWN");
    // A lone secret is ignored if another source gives keys, and an error otherwise.
    let world = World::new()
        .file(CREDENTIALS, "[default]\naws_secret_access_key = S\n")
        .file(CONFIG, format!("[default]\n{}", keys("C")));
    assert_eq!(found(&world).access_key_id, "C");
    let world = World::new().file(CREDENTIALS, "[default]\naws_secret_access_key = S\n");
    assert!(matches!(resolve(&world, Options::default()), Err(Error::Invalid { .. })));
}

#[test]
fn a_source_profile_has_the_order_of_any_profile() {
    let arn = "arn:aws:iam::123456789012:role/A";
    let role = format!("[default]\nrole_arn = {arn}\nsource_profile = p\n");
    let sso = "[profile p]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = R\n\
               [sso-session s]\nsso_region = us-east-1\nsso_start_url = https://x/start\n";
    let token = r#"{"accessToken": "t", "expiresAt": "2026-01-01T08:00:00Z"}"#;
    let world = World::new()
        .file(CONFIG, format!("{role}{sso}"))
        .file(CREDENTIALS, format!("[p]\n{}", keys("STALE")))
        .file("/home/user/.aws/sso/cache/a0f1490a20d0211c997b44bc357e1972deab8ae3.json", token)
        .role(arn);
    world.services().set_sso("t", "r");
    let resolved = resolve(&world, Options::default()).unwrap();
    let asked = |resolved: &Resolved| {
        let steps =
            resolved.trace.steps().iter().filter(|s| s.outcome == aws_cred_chain::Outcome::Found);
        steps.filter_map(|step| step.source).collect::<Vec<_>>()
    };
    assert_eq!(asked(&resolved), [Source::Sso, Source::AssumeRole]);
    // A process takes precedence over keys of the config file.
    let world = World::new()
        .file(CONFIG, format!("{role}[profile p]\n{}credential_process = give\n", keys("STALE")))
        .user("FRESH", "S", "123456789012")
        .role(arn);
    let output = r#"{"Version": 1, "AccessKeyId": "FRESH", "SecretAccessKey": "S"}"#;
    world.commands().put("give", CommandOutput::new(0, output));
    let resolved = resolve(&world, Options::default()).unwrap();
    assert_eq!(asked(&resolved), [Source::Process, Source::AssumeRole]);
}

#[test]
fn web_identity_joins_variables_and_profile() {
    let arn = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    let account = |world: &World| {
        for name in ["P", "W"] {
            world.services().add_role(Role::new(arn(name)).with_web_identity("a.b.c"));
        }
        let resolved = resolve(world, Options::default()).unwrap();
        assert_eq!(resolved.credentials.source, Source::WebIdentity);
        let plan = block_on(Chain::new(world.context(), Options::default()).plan()).unwrap();
        match plan.profile.unwrap().base {
            aws_cred_chain::plan::Base::WebIdentity { role, .. } => {
                (role.role_arn.rsplit('/').next().unwrap().to_owned(), role.session_name)
            }
            other => panic!("{other:?}"),
        }
    };
    let world = || World::new().file("/jwt", "a.b.c");
    let profile = format!(
        "[default]\nrole_arn = {}\nweb_identity_token_file = /jwt\nrole_session_name = mine\n",
        arn("P")
    );
    let token = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/jwt");
    // The role is the profile's, the token a variable's.
    let role_alone = format!("[default]\nrole_arn = {}\n", arn("P"));
    let found = account(&world().file(CONFIG, role_alone).env(token.0, token.1));
    assert_eq!(found, ("P".to_owned(), None));
    // The role is a variable's, the token the profile's.
    let found = account(&world().file(CONFIG, profile.as_str()).env("AWS_ROLE_ARN", &arn("W")));
    assert_eq!(found, ("W".to_owned(), Some("mine".to_owned())));
    // The session's name is a variable's.
    let found = account(&world().file(CONFIG, profile.as_str()).env("AWS_ROLE_SESSION_NAME", "v"));
    assert_eq!(found, ("P".to_owned(), Some("v".to_owned())));
    // The session's name is the profile's; the other settings are variables.
    let named = "[default]\nrole_session_name = mine\n";
    let by_variables =
        world().file(CONFIG, named).env(token.0, token.1).env("AWS_ROLE_ARN", &arn("W"));
    assert_eq!(account(&by_variables), ("W".to_owned(), Some("mine".to_owned())));
}

#[test]
fn the_clis_cached_keys_of_an_sso_role_are_used() {
    let check = |config: &str, key: &str| {
        let cached = r#"{"ProviderType": "sso", "Credentials": {"AccessKeyId": "CACHED", "SecretAccessKey": "s",
            "SessionToken": "t", "Expiration": "2026-01-01T01:00:00Z", "AccountId": "123456789012"}}"#;
        let world = World::new()
            .file(CONFIG, config)
            .file(format!("/home/user/.aws/cli/cache/{key}.json"), cached);
        let credentials = found(&world);
        assert_eq!(
            (credentials.access_key_id.as_str(), credentials.source),
            ("CACHED", Source::Sso)
        );
        let mut options = Options::default();
        options.cli_cache = CliCache::Off;
        assert!(matches!(resolve(&world, options), Err(Error::LoginRequired { .. })));
    };
    let role = "sso_account_id = 123456789012\nsso_role_name = R\n";
    let place = "sso_region = us-east-1\nsso_start_url = https://d-1.awsapps.com/start\n";
    // The SHA-1 of `{"accountId":"123456789012","roleName":"R","sessionName":"s"}`, and of the same
    // with `startUrl`.
    check(
        &format!("[default]\nsso_session = s\n{role}[sso-session s]\n{place}"),
        "f5c139c90b634c780544787e9dadefd6779cb5cf",
    );
    check(&format!("[default]\n{role}{place}"), "bcdcc22972921bb5629b19ab7934d3bc717f0520");
}

#[test]
fn keys_of_an_sso_role_are_left_for_the_cli_where_that_is_wanted() {
    let config = "[default]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = R\n\
                  [sso-session s]\nsso_region = us-east-1\nsso_start_url = https://x/start\n";
    let token = r#"{"accessToken": "t", "expiresAt": "2026-01-01T08:00:00Z"}"#;
    let world = World::new()
        .file(CONFIG, config)
        .file("/home/user/.aws/sso/cache/a0f1490a20d0211c997b44bc357e1972deab8ae3.json", token);
    world.services().set_sso("t", "r");
    let mut options = Options::default();
    options.cli_cache = CliCache::Roles;
    let first = resolve(&world, options.clone()).unwrap().credentials;
    let asked = world.services().seen().len();
    assert_eq!(resolve(&world, options).unwrap().credentials, first);
    assert_eq!(world.services().seen().len(), asked);
    let cached: Vec<_> = world
        .files()
        .paths()
        .into_iter()
        .filter(|path| path.starts_with("/home/user/.aws/cli"))
        .collect();
    assert_eq!(cached.len(), 1);
    let read = cli_cache::parse(&world.files().content(&cached[0]).unwrap()).unwrap();
    assert_eq!(read.access_key_id, first.access_key_id);
}

/// A metadata service whose token requests end with the given result, and that serves version 1. It
/// counts the documents that it serves.
#[derive(Clone, Debug)]
struct Version1(Result<u16, ()>, Arc<AtomicUsize>);

impl SendHttp for Version1 {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        let path = request.uri().path().to_owned();
        self.1.fetch_add(usize::from(request.method() == "GET"), Ordering::SeqCst);
        Box::pin(async move {
            let (status, body) = match (request.method().as_str(), path.as_str(), self.0) {
                ("PUT", _, Err(())) => std::future::pending().await,
                ("PUT", _, Ok(status)) => (status, ""),
                (_, "/latest/meta-data/iam/security-credentials/", _) => (200, "role"),
                _ => (
                    200,
                    r#"{"Code": "Success", "AccessKeyId": "V1", "SecretAccessKey": "s", "Token": "t",
                        "Expiration": "2026-01-01T06:00:00Z"}"#,
                ),
            };
            assert!(request.headers().get("x-aws-ec2-metadata-token").is_none());
            let response =
                http::Response::builder().status(status).header("content-length", body.len());
            Ok(response.body(Bytes::from(body)).unwrap())
        })
    }
}

#[test]
fn version_1_of_the_metadata_service_serves_where_no_token_is_given() {
    for token in [Err(()), Ok(302), Ok(401), Ok(403), Ok(404), Ok(405), Ok(500)] {
        let world = World::new();
        let given = Arc::new(AtomicUsize::new(0));
        let context = world.context().with_http(Version1(token, given.clone()));
        let resolved = block_on(Chain::new(context.clone(), Options::default()).resolve());
        assert_eq!(resolved.unwrap().credentials.access_key_id, "V1", "{token:?}");
        given.store(0, Ordering::SeqCst);
        let env = [("HOME", "/home/user"), ("AWS_EC2_METADATA_V1_DISABLED", "true")];
        let context = context.with_env(MapEnv::new(env));
        let error = block_on(Chain::new(context, Options::default()).resolve()).unwrap_err().error;
        assert!(
            error.report().contains("version 1 of the service is disabled"),
            "{}",
            error.report()
        );
        assert_eq!(given.load(Ordering::SeqCst), 0, "version 1 was asked");
    }
}

#[test]
fn a_lost_token_names_the_hop_limit() {
    let world = World::new();
    // The caller is two hops away, and answers live for one hop. Version 1 is not served.
    world.services().set_metadata(Some("role"), 1, 2, false);
    let error = resolve(&world, Options::default()).unwrap_err();
    assert!(matches!(error, Error::NotConfigured { .. }), "{error:?}");
    assert!(error.to_string().contains("hop limit"), "{error}");
}

#[cfg(unix)]
#[test]
fn variables_that_are_not_unicode_are_refused_by_name() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    for name in
        ["AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"]
    {
        let files = MapFiles::new([(CONFIG, format!("[default]\n{}", keys("A")))]);
        let mut env = MapEnv::new([("HOME", "/home/user")]);
        env.set(name, OsString::from_vec(vec![0xff, 0xfe]));
        let context = World::new().context().with_env(env).with_files(files);
        let error = block_on(Chain::new(context, Options::default()).resolve()).unwrap_err().error;
        assert!(matches!(error, Error::Invalid { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
    // A path need not be Unicode.
    let place = OsString::from_vec(b"/x/\xff".to_vec());
    let files = MapFiles::default();
    files.put(&place, format!("[default]\n{}", keys("THERE")));
    let mut env = MapEnv::new([("HOME", "/home/user")]);
    env.set("AWS_CONFIG_FILE", place);
    let context = World::new().context().with_env(env).with_files(files);
    let resolved = block_on(Chain::new(context, Options::default()).resolve()).unwrap();
    assert_eq!(resolved.credentials.access_key_id, "THERE");
}

/// Answers every read with the error of this number.
#[derive(Debug)]
struct Unreadable(i32);

impl ReadFile for Unreadable {
    fn read<'a>(&'a self, _: &'a Path, _: u64) -> BoxFuture<'a, io::Result<FileData>> {
        Box::pin(std::future::ready(Err(io::Error::from_raw_os_error(self.0))))
    }
}

#[cfg(target_os = "linux")]
#[test]
fn files_that_cannot_be_read_count_as_not_there() {
    // EACCES, ENOTDIR, EISDIR, ENXIO, ENAMETOOLONG, ELOOP.
    for number in [13, 20, 21, 6, 36, 40] {
        let world = World::new().env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x");
        world.services().set_container(None);
        let context = world.context().with_files(Unreadable(number));
        let chain = Chain::new(context.clone(), Options::default());
        let resolved = block_on(chain.resolve()).unwrap();
        assert_eq!(resolved.credentials.source, Source::Container, "{number}");
        assert!(resolved.trace.to_string().contains("taken as not there"), "{}", resolved.trace);
        let region = block_on(region(&context, &Options::default(), false)).unwrap();
        assert_eq!(region, None);
        // The error about a missing profile names the unreadable file.
        let named = Options::default().with_profile("p");
        let error = block_on(Chain::new(context, named).resolve()).unwrap_err().error;
        assert!(error.to_string().contains("cannot read file"), "{error}");
    }
}

#[test]
fn throttled_calls_are_tried_again_and_are_retryable() {
    let arn = "arn:aws:iam::123456789012:role/A";
    let world = || {
        World::new()
            .file(CONFIG, format!("[default]\nrole_arn = {arn}\ncredential_source = Environment\n"))
            .env("AWS_ACCESS_KEY_ID", "A")
            .env("AWS_SECRET_ACCESS_KEY", "S")
            .user("A", "S", "123456789012")
            .role(arn)
    };
    let code =
        |code: &str| format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
    for name in
        ["Throttling", "TooManyRequestsException", "RequestThrottled", "PriorRequestNotComplete"]
    {
        let world = world();
        world.services().fault("sts", Fault::Answer(400, code(name)));
        let named = Options::default().with_profile("default");
        let error = resolve(&world, named).unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert_eq!(world.services().count("AssumeRole"), 3, "{name}");
    }
    let mut more = world().env("AWS_MAX_ATTEMPTS", "5");
    more.services().fault("sts", Fault::Status(503));
    resolve(&more, Options::default().with_profile("default")).unwrap_err();
    assert_eq!(more.services().count("AssumeRole"), 5);
    more = world();
    more.services().fault("sts", Fault::Answer(400, code("MalformedPolicyDocument")));
    let refused = resolve(&more, Options::default().with_profile("default")).unwrap_err();
    assert!(!refused.is_retryable(), "{refused:?}");
    // The container endpoint and SSO answer with status 429.
    let world = World::new().env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x");
    world.services().fault("container", Fault::Status(429));
    assert!(resolve(&world, Options::default()).unwrap_err().is_retryable());
}

#[test]
fn a_source_that_is_left_out_is_not_asked_wherever_it_stands() {
    let container = |world: World| {
        let world = world.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x");
        world.services().set_container(None);
        world
    };
    let check = |config: &str, credentials: &str, source: Source| {
        let world = container(World::new()).file(CONFIG, config).file(CREDENTIALS, credentials);
        let resolved = resolve(&world, Options::default().without(source)).unwrap();
        assert_eq!(resolved.credentials.source, Source::Container, "{source:?}");
        let skipped = format!("skipped {}", source.cli_name());
        assert!(resolved.trace.to_string().contains(&skipped), "{}", resolved.trace);
    };
    check("[default]\ncredential_process = x\n", "", Source::Process);
    check("", &format!("[default]\n{}", keys("A")), Source::SharedFile);
    check(&format!("[default]\n{}", keys("A")), "", Source::ConfigFile);
    check("[default]\nlogin_session = x\n", "", Source::Login);
    check("[default]\nrole_arn = r\nsource_profile = b\n", "", Source::AssumeRole);
    let sso =
        "[default]\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = R\n";
    check(sso, "", Source::Sso);
    check("[default]\nrole_arn = r\nweb_identity_token_file = f\n", "", Source::WebIdentity);
    // If both files are left out, they need not be parsable.
    let world = container(World::new()).file(CONFIG, "garbage\n");
    let options = Options::default().without(Source::SharedFile).without(Source::ConfigFile);
    let resolved = resolve(&world, options).unwrap();
    assert_eq!(resolved.credentials.source, Source::Container);
    assert!(matches!(resolve(&world, Options::default()), Err(Error::Invalid { .. })));
    // The profile's next source is asked instead.
    let both = format!("[default]\ncredential_process = x\n{}", keys("A"));
    let world = container(World::new()).file(CONFIG, both);
    let resolved = resolve(&world, Options::default().no_process()).unwrap();
    assert_eq!(resolved.credentials.source, Source::ConfigFile);
}

#[test]
fn expired_keys_are_not_handed_out() {
    let world = World::new()
        .env("AWS_ACCESS_KEY_ID", "A")
        .env("AWS_SECRET_ACCESS_KEY", "S")
        .env("AWS_CREDENTIAL_EXPIRATION", "2025-12-31T23:59:59Z");
    assert!(matches!(resolve(&world, Options::default()), Err(Error::Invalid { .. })));
    let world = World::new().file(CONFIG, "[default]\ncredential_process = give\n");
    let output = r#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "S",
                     "Expiration": "2025-12-31T23:59:59Z"}"#;
    world.commands().put("give", CommandOutput::new(0, output));
    let error = resolve(&world, Options::default()).unwrap_err();
    assert!(error.report().contains("ended at 2025-12-31T23:59:59Z"), "{}", error.report());
}

#[test]
fn a_wrong_code_is_asked_for_again_and_blanks_in_it_are_none() {
    let arn = "arn:aws:iam::123456789012:role/M";
    let world = World::new()
        .file(
            CONFIG,
            format!(
                "[default]\nrole_arn = {arn}\nsource_profile = b\nmfa_serial = m\n[profile b]\n{}",
                keys("A")
            ),
        )
        .user("A", "SECRET", "123456789012");
    world.services().add_role(Role::new(arn).with_mfa("m", "123456"));
    world.prompt().put("999999");
    world.prompt().put("123 456");
    let resolved = resolve(&world, Options::default()).unwrap();
    assert_eq!(resolved.credentials.source, Source::AssumeRole);
    assert_eq!(world.prompt().questions().len(), 2);
}

#[test]
fn programs_on_windows_keep_their_backslashes() {
    let env = MapEnv::new([("USERPROFILE", r"C:\Users\me")]);
    let config = r#"[default]
credential_process = C:\Tools\vault.exe --id "C:\Program Files\x.txt"
"#;
    let files = MapFiles::new([(r"C:\Users\me\.aws\config", config)]);
    let world = World::new();
    let output = r#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "S"}"#;
    world.commands().put(r"C:\Tools\vault.exe", CommandOutput::new(0, output));
    let context: Context = world.context().with_env(env).with_files(files).with_windows_paths(true);
    let resolved = block_on(Chain::new(context, Options::default()).resolve()).unwrap();
    assert_eq!(resolved.credentials.source, Source::Process);
}

#[test]
fn a_person_and_a_process_may_take_longer_than_a_source() {
    let world = World::new().file(CONFIG, "[default]\ncredential_process = give\n");
    let output = r#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "S"}"#;
    let time = (world.clock(), Duration::from_secs(300));
    world.commands().put_slow("give", time, CommandOutput::new(0, output));
    let resolved = resolve(&world, Options::default()).unwrap();
    assert_eq!(resolved.credentials.access_key_id, "A");
    // A budget that was set limits the process.
    let mut options = Options::default();
    options.source_budget = Duration::from_secs(30);
    assert!(matches!(resolve(&world, options), Err(Error::TimedOut { .. })));
}
