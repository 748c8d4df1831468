//! Tests of the test kit: recordings without secrets, waits that never end, builders and faults.

use std::time::{Duration, SystemTime};

use aws_cred_chain::testing::{Fault, Recorder, Replay, VirtualClock, WaitsForEver, World};
use aws_cred_chain::{Chain, Clock as _, Error, Options, Source, block_on};

const ROLE: &str = "arn:aws:iam::123456789012:role/Reader";
const DAY: Duration = Duration::from_secs(86_400);

fn with_role(more: &str) -> World {
    let config = format!(
        "[default]\nrole_arn = {ROLE}\nsource_profile = base\n{more}[profile base]\n\
         aws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n"
    );
    World::new()
        .user("AKIDBASE", "base-secret", "123456789012")
        .file("/home/user/.aws/config", config)
}

#[test]
fn a_recording_holds_no_secret_and_plays_the_same() {
    let world = with_role("mfa_serial = dev\n").mfa_role(ROLE, "dev", "123456");
    world.services().set_metadata(Some("instance"), 1, 1, false);
    let recorder = Recorder::new(world.services().clone());
    let context = world.context().with_http(recorder.clone());
    let resolve = |context, options| block_on(Chain::new(context, options).resolve());
    let role = resolve(context.clone(), Options::default()).unwrap().credentials;
    let bare = World::new();
    let metadata = |http: Recorder| resolve(bare.context().with_http(http), Options::default());
    let instance = metadata(recorder.clone()).unwrap().credentials;
    assert_eq!(instance.source, Source::InstanceMetadata);

    let text = recorder.recording(context.clock().now());
    for secret in
        ["issued-secret", "token-1", "metadata-token-1", "123456&", "base-secret", "Signature"]
    {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(text.contains(ROLE.rsplit('/').next().unwrap()) && text.contains("AssumeRole"));

    let replay = Replay::parse(&text).unwrap();
    assert_eq!(replay.started_at(), context.clock().now());
    let world = with_role("mfa_serial = dev\n").mfa_role(ROLE, "dev", "654321");
    let played = resolve(world.context().with_http(replay.clone()), Options::default()).unwrap();
    assert_eq!(played.credentials.access_key_id, role.access_key_id);
    assert_eq!(played.credentials.expires_at, role.expires_at);
    let bare = World::new();
    let played =
        resolve(bare.context().with_http(replay.clone()), Options::default()).unwrap().credentials;
    assert_eq!(played.access_key_id, instance.access_key_id);
    assert_eq!(replay.left(), 0);
    // A request that was not recorded fails to connect.
    assert!(resolve(World::new().context().with_http(replay), Options::default()).is_err());
    for bad in ["", "{}", r#"{"recorded_at":"2026-01-01T00:00:00Z","exchanges":[{}]}"#] {
        assert!(Replay::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn errors_of_the_connection_are_recorded_too() {
    let world = with_role("").role(ROLE).fault("sts", Fault::Refused);
    let recorder = Recorder::new(world.services().clone());
    let context = world.context().with_http(recorder.clone());
    let first = block_on(Chain::new(context.clone(), Options::default()).resolve()).unwrap_err();
    let replay = Replay::parse(&recorder.recording(context.clock().now())).unwrap();
    assert_eq!(replay.left(), 3);
    let again =
        block_on(Chain::new(context.with_http(replay.clone()), Options::default()).resolve());
    assert_eq!(again.unwrap_err().error.to_string(), first.error.to_string());
    assert_eq!(replay.left(), 0);
}

/// Sleeps an hour again and again.
async fn tick(clock: &VirtualClock) {
    loop {
        clock.sleep(Duration::from_secs(3600)).await;
    }
}

#[test]
fn a_wait_without_an_end_is_found() {
    let clock = VirtualClock::new(SystemTime::UNIX_EPOCH);
    assert_eq!(clock.run(DAY, std::future::ready(7)), Ok(7));
    assert_eq!(clock.run(DAY, clock.sleep(Duration::from_secs(90))), Ok(()));
    let stuck = clock.run(DAY, std::future::pending::<()>());
    let after = Duration::from_secs(90);
    assert_eq!(stuck, Err(WaitsForEver::Stuck { after, sleepers: 0 }));
    let error = clock.run(DAY, tick(&clock)).unwrap_err();
    assert!(matches!(error, WaitsForEver::NoEnd { after } if after > DAY), "{error}");
    let manual = VirtualClock::manual(SystemTime::UNIX_EPOCH);
    let stuck = manual.run(DAY, manual.sleep(Duration::from_secs(1)));
    assert_eq!(stuck, Err(WaitsForEver::Stuck { after: Duration::ZERO, sleepers: 1 }));
}

/// Every source that hangs ends within the budgets of the chain.
#[test]
fn no_source_waits_for_ever() {
    let run = |world: &World| {
        let chain = Chain::new(world.context(), Options::default());
        world.clock().run(DAY, chain.resolve()).unwrap_or_else(|error| panic!("{error}"))
    };
    let config = "[default]\ncredential_process = hang\n";
    let world = World::new().file("/home/user/.aws/config", config).hanging_process("hang");
    assert!(matches!(run(&world).unwrap_err().error, Error::TimedOut { .. }));
    for service in ["sts", "metadata", "container", "sso", "sso_oidc"] {
        let sso = "[default]\nsso_start_url = https://x\nsso_region = us-east-1\nsso_account_id = 1\n\
            sso_role_name = R\n";
        let token = "{\"accessToken\":\"a\",\"expiresAt\":\"2027-01-01T00:00:00Z\"}";
        // The file's name is the SHA-1 of the start URL.
        let path = "/home/user/.aws/sso/cache/";
        let world = match service {
            "sts" => with_role("").role(ROLE),
            "sso" | "sso_oidc" => World::new()
                .file("/home/user/.aws/config", sso)
                .file(format!("{path}98383e6608d65e46b24bbd92582bc8d916605a21.json"), token),
            "container" => World::new().env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"),
            _ => World::new(),
        };
        assert!(run(&world.fault(service, Fault::Silent)).is_err(), "{service}");
    }
}

#[test]
fn builders_of_roles_programs_and_faults() {
    let world = with_role("mfa_serial = dev\nexternal_id = out\n").mfa_role_with_external_id(
        ROLE,
        ("dev", "123456"),
        "out",
    );
    let resolve =
        |world: &World| block_on(Chain::new(world.context(), Options::default()).resolve());
    assert_eq!(resolve(&world).unwrap().credentials.source, Source::AssumeRole);

    let output = r#"{"Version":1,"AccessKeyId":"AKIDPROC","SecretAccessKey":"s"}"#;
    let config = "[default]\ncredential_process = give\n";
    let world = World::new().file("/home/user/.aws/config", config).process("give", output);
    assert_eq!(resolve(&world).unwrap().credentials.access_key_id, "AKIDPROC");

    let body = "<E><Code>MalformedPolicyDocument</Code><Message>why</Message></E>".to_owned();
    let world = with_role("").role(ROLE).fault("sts", Fault::Answer(400, body));
    match resolve(&world).unwrap_err().error {
        Error::Denied { code, message, .. } => {
            assert_eq!((code.as_str(), message.as_str()), ("MalformedPolicyDocument", "why"));
        }
        other => panic!("{other:?}"),
    }
}
