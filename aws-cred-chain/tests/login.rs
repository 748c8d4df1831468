//! Logins against fakes of the services that check codes, verifiers and proofs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use aws_cred_chain::login::{ConsoleLogin, ListenForRedirect as _, SsoLogin};
use aws_cred_chain::real::{LocalFiles, Loopback};
use aws_cred_chain::testing::{Fault, World};
use aws_cred_chain::{
    Chain, Clock as _, Error, Options, Secret, Source, block_on, login_cache_key, memory,
};
use serde_json::Value;

const CONFIG: &str = "[default]\nsso_session = corp\nsso_account_id = 123456789012\n\
    sso_role_name = Reader\nregion = us-east-1\n[sso-session corp]\nsso_region = us-east-1\n\
    sso_start_url = https://corp.awsapps.com/start\nsso_registration_scopes = sso:account:access, x\n";

fn world() -> World {
    World::new().file("/home/user/.aws/config", CONFIG)
}

fn of_profile(world: &World) -> SsoLogin {
    block_on(SsoLogin::of_profile(world.context(), Options::default())).unwrap()
}

fn json(world: &World, path: &str) -> Value {
    serde_json::from_slice(&world.files().content(path).unwrap()).unwrap()
}

fn token_path(world: &World) -> String {
    let tokens = world.files().paths().into_iter().filter(|path| {
        path.starts_with("/home/user/.aws/sso/cache")
            && json(world, path.to_str().unwrap()).get("accessToken").is_some()
    });
    let paths: Vec<_> = tokens.collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths[0].to_str().unwrap().to_owned()
}

#[test]
fn a_device_login_polls_slows_down_and_leaves_a_token_that_chains_use() {
    let world = world();
    let browser = world.browser();
    let pending = "authorization_pending";
    world.services().set_device_polls([pending, pending, "slow_down", pending]);
    let start = world.clock().monotonic();
    let token = block_on(of_profile(&world).by_device(&browser)).unwrap();
    // The first poll comes at once; then after 1 s, 1 s, and after "slow down" 6 s twice.
    assert_eq!(world.clock().monotonic() - start, Duration::from_secs(1 + 1 + 6 + 6));
    let pages = browser.pages();
    assert_eq!(pages.len(), 1);
    assert_eq!(pages[0].user_code.as_deref(), Some("ABCD-EFGH"));
    let file = json(&world, &token_path(&world));
    assert_eq!(file["accessToken"], token.token.expose());
    assert_eq!(file["startUrl"], "https://corp.awsapps.com/start");
    assert_eq!(file["region"], "us-east-1");
    assert_eq!(file["expiresAt"], "2026-01-01T08:00:14Z");
    assert!(file["registrationExpiresAt"].is_string() && file["refreshToken"].is_string());
    let resolved = block_on(Chain::new(world.context(), Options::default()).resolve()).unwrap();
    assert_eq!(resolved.credentials.source, Source::Sso);
    // A second login uses the registration of the first.
    block_on(of_profile(&world).by_device(&browser)).unwrap();
    assert_eq!(world.services().count("/client/register"), 1);
}

#[test]
fn a_device_login_ends_with_its_code_and_with_a_refusal() {
    let world = world();
    let browser = world.browser();
    world.services().set_device_polls(vec!["authorization_pending"; 10_000]);
    let login = of_profile(&world);
    let answer = block_on(login.by_device(&browser));
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
    assert!(world.services().count("/token") <= 601);
    for (code, timed_out) in [("expired_token", true), ("access_denied", false)] {
        world.services().set_device_polls([code]);
        let answer = block_on(login.by_device(&browser));
        match answer {
            Err(Error::TimedOut { .. }) => assert!(timed_out),
            Err(Error::Denied { code: found, .. }) => assert!(!timed_out && found == code),
            other => panic!("{other:?}"),
        }
    }
    world.services().fault("sso_oidc", Fault::Status(503));
    assert!(block_on(login.by_device(&browser)).unwrap_err().is_retryable());
}

#[test]
fn a_browser_login_proves_itself_by_its_verifier() {
    let world = world();
    let browser = world.browser();
    let token = block_on(of_profile(&world).by_browser(&browser, &browser)).unwrap();
    let url = browser.pages()[0].url.clone();
    assert!(url.starts_with("https://oidc.us-east-1.amazonaws.com/authorize?"), "{url}");
    for part in [
        "&code_challenge_method=S256",
        "&redirect_uri=http%3A%2F%2F127.0.0.1%3A49152%2Foauth%2Fcallback",
        "&scopes=sso%3Aaccount%3Aaccess%20x",
    ] {
        assert!(url.contains(part), "{url}");
    }
    let file = json(&world, &token_path(&world));
    assert_eq!(file["accessToken"], token.token.expose());
    browser.refuse();
    let error = block_on(of_profile(&world).by_browser(&browser, &browser)).unwrap_err();
    assert!(error.report().contains("access_denied"), "{}", error.report());
    // A client that is registered for the browser cannot be used for a device.
    block_on(of_profile(&world).by_device(&browser)).unwrap();
    assert_eq!(world.services().count("/client/register"), 2);
}

#[test]
fn nobody_who_logs_in_is_a_time_out() {
    let world = world();
    let browser = world.browser();
    // The page is shown to a person of another world.
    let elsewhere = World::new().browser();
    let answer = block_on(of_profile(&world).by_browser(&elsewhere, &browser));
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
}

#[test]
fn a_console_login_leaves_a_session_that_chains_use_and_renew() {
    for remote in [false, true] {
        let world = World::new();
        let browser = world.browser();
        let login = ConsoleLogin::new(world.context(), Options::default());
        let session = match remote {
            true => block_on(login.by_code(&browser)),
            false => block_on(login.by_browser(&browser, &browser)),
        };
        let session = session.unwrap();
        assert_eq!(session.session, "arn:aws:sts::123456789012:assumed-role/Admin/person");
        assert_eq!(session.credentials.account_id.as_deref(), Some("123456789012"));
        let url = browser.pages()[0].url.clone();
        let device = if remote { "cross-device" } else { "same-device" };
        assert!(url.starts_with("https://us-east-1.signin.aws.amazon.com/v1/authorize?"), "{url}");
        assert!(url.contains(&format!("devtools%2F{device}")), "{url}");
        let name = login_cache_key(&session.session);
        let file = json(&world, &format!("/home/user/.aws/login/cache/{name}.json"));
        let pem = file["dpopKey"].as_str().unwrap();
        assert!(pem.starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
        let config =
            format!("[default]\nregion = us-east-1\nlogin_session = {}\n", session.session);
        let world = world.file("/home/user/.aws/config", config);
        let resolve = || block_on(Chain::new(world.context(), Options::default()).resolve());
        assert_eq!(resolve().unwrap().credentials, session.credentials);
        // The key in the file signs the request for renewal.
        world.clock().advance(Duration::from_secs(800));
        let renewed = resolve().unwrap().credentials;
        assert_ne!(renewed.access_key_id, session.credentials.access_key_id);
        assert_eq!(renewed.source, Source::Login);
    }
}

/// Executors may move the futures between threads.
#[test]
fn logins_may_run_on_any_thread() {
    fn is_send(_: impl Send) {}
    let world = world();
    let browser = world.browser();
    let login = of_profile(&world);
    is_send(login.by_device(&browser));
    is_send(login.by_browser(&browser, &browser));
    let console = ConsoleLogin::new(world.context(), Options::default());
    is_send(console.by_browser(&browser, &browser));
    is_send(console.by_code(&browser));
}

#[test]
fn a_profile_without_identity_center_has_no_login() {
    let world = World::new().file("/home/user/.aws/config", "[default]\nregion = us-east-1\n");
    let answer = block_on(SsoLogin::of_profile(world.context(), Options::default()));
    assert!(matches!(answer, Err(Error::Invalid { .. })), "{answer:?}");
}

#[test]
fn no_secret_of_a_login_is_shown() {
    let world = world();
    let browser = world.browser();
    let login = of_profile(&world);
    let token = block_on(login.by_browser(&browser, &browser)).unwrap();
    let console = ConsoleLogin::new(world.context(), Options::default());
    let session = block_on(console.by_browser(&browser, &browser)).unwrap();
    let shown =
        format!("{login:?} {token:?} {console:?} {session:?} {browser:?} {:?}", world.services());
    for secret in ["access-", "client-secret-", "sso-refresh-", "issued-secret-", "token-", "code-"]
    {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

/// The port is on the loopback address, answers other requests with errors, and closes when the
/// wait is dropped.
#[test]
fn a_loopback_port_gives_the_awaited_query_alone() {
    let redirect = Loopback.listen().unwrap();
    let port = redirect.port();
    let get = move |target: &str| {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        connection
            .write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    };
    // A silent connection does not block the others.
    let _silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let browser = std::thread::spawn(move || {
        let strays = ["/favicon.ico", "/oauth/callback?state=other&code=x"];
        assert!(strays.iter().all(|target| get(target).starts_with("HTTP/1.1 404 ")));
        assert!(get("/oauth/callback?state=mine&code=c").starts_with("HTTP/1.1 200 "));
    });
    let awaited = Box::new(|query: &str| query.starts_with("state=mine&"));
    let query = block_on(redirect.query("/oauth/callback", awaited)).unwrap();
    assert_eq!(query.expose(), "state=mine&code=c");
    browser.join().unwrap();
    // A dropped wait closes its port.
    let redirect = Loopback.listen().unwrap();
    let port = redirect.port();
    let mut waiting = redirect.query("/", Box::new(|_| true));
    let mut nothing = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiting.as_mut().poll(&mut nothing).is_pending());
    drop(waiting);
    let closed = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        TcpStream::connect(("127.0.0.1", port)).is_err()
    });
    assert!(closed, "the port is still open");
}

/// botocore reads the cache files that the logins write.
#[test]
fn botocore_finds_the_tokens() {
    let Some(python) = test_support::venv_program("python") else {
        test_support::left_out("logins beside botocore", "no target/venv");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let world = world();
    let browser = world.browser();
    let context = world
        .context()
        .with_env(memory::MapEnv::new([("HOME", home.path().to_str().unwrap())]))
        .with_files(LocalFiles)
        .with_cache_files(LocalFiles);
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    std::fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
    let login = block_on(SsoLogin::of_profile(context.clone(), Options::default())).unwrap();
    let token: Secret = block_on(login.by_browser(&browser, &browser)).unwrap().token;
    let console = ConsoleLogin::new(context, Options::default());
    let session = block_on(console.by_browser(&browser, &browser)).unwrap();
    let script = "import sys, json, os, botocore.session, botocore.utils as u\n\
        s = botocore.session.Session()\n\
        load = u.SSOTokenLoader(cache=u.JSONFileCache(os.path.expanduser('~/.aws/sso/cache')))\n\
        print(load('https://corp.awsapps.com/start', session_name='corp')['accessToken'])\n\
        cache = u.JSONFileCache(u.get_login_token_cache_directory())\n\
        t = u.LoginTokenLoader(cache).load_token(sys.argv[1])\n\
        print(t['accessToken']['accessKeyId'])\n\
        from cryptography.hazmat.primitives.serialization import load_pem_private_key as l\n\
        print(l(t['dpopKey'].encode(), None).curve.name)\n";
    let output = Command::new(python)
        .args(["-c", script, &session.session])
        .env_clear()
        .env("HOME", home.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failure = String::from_utf8_lossy(&output.stderr);
    let expected =
        format!("{}\n{}\nsecp256r1\n", token.expose(), session.credentials.access_key_id);
    assert_eq!(text, expected, "{failure}");
}
