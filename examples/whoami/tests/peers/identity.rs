//! `whoami` and the `aws` command find the same identity and source, and share one cache of MFA
//! sessions.

use serde_json::Value;

use crate::judge::Judge;

#[test]
fn the_same_identity_and_source_as_the_aws_command() {
    let Some(judge) = Judge::new() else { return };
    let (env_id, env_secret) = judge.user("from-env");
    let (file_id, file_secret) = judge.user("from-file");
    let (process_id, process_secret) = judge.user("from-process");
    let token = judge.file("token", "eyJhbGciOiJub25lIn0.e30.");
    let output = judge.file(
        "credentials.json",
        &format!(r#"{{"Version": 1, "AccessKeyId": "{process_id}", "SecretAccessKey": "{process_secret}"}}"#),
    );
    judge.file(
        ".aws/credentials",
        &format!(
            "[default]\naws_access_key_id = {file_id}\naws_secret_access_key = {file_secret}\n"
        ),
    );
    let role = "arn:aws:iam::123456789012:role";
    let config = format!(
        "[default]\nregion = us-east-1\n\
         [profile inconfig]\naws_access_key_id = {file_id}\naws_secret_access_key = {file_secret}\n\
         [profile role]\nrole_arn = {role}/Reader\nsource_profile = default\nrole_session_name = judge\n\
         [profile chained]\nrole_arn = {role}/Writer\nsource_profile = role\nrole_session_name = judge\n\
         [profile process]\ncredential_process = cat \"{}\"\n\
         [profile fromenv]\nrole_arn = {role}/Env\ncredential_source = Environment\nrole_session_name = judge\n\
         [profile web]\nrole_arn = {role}/Web\nweb_identity_token_file = {}\nrole_session_name = judge\n",
        output.display(),
        token.display()
    );
    judge.file(".aws/config", &config);
    let keys =
        [("AWS_ACCESS_KEY_ID", env_id.as_str()), ("AWS_SECRET_ACCESS_KEY", env_secret.as_str())];

    let ends = |identity: Value, end: &str| {
        assert!(identity["Arn"].as_str().unwrap().ends_with(end), "{identity}, not {end}");
    };
    ends(judge.same("environment", None, &keys), "user/from-env");
    ends(judge.same("default profile", None, &[]), "user/from-file");
    ends(judge.same("a profile goes before the environment", Some("role"), &keys), "Reader/judge");
    ends(judge.same("config file", Some("inconfig"), &[]), "user/from-file");
    ends(judge.same("process", Some("process"), &[]), "user/from-process");
    ends(judge.same("chained roles", Some("chained"), &[]), "Writer/judge");
    ends(judge.same("web identity", Some("web"), &[]), "Web/judge");
    let env_profile = [keys[0], keys[1], ("AWS_PROFILE", "fromenv")];
    ends(
        judge.same("AWS_PROFILE with keys in the environment", None, &env_profile),
        "user/from-env",
    );
    let metadata = [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", judge.url()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"),
        ("AWS_CONFIG_FILE", "/nowhere"),
    ];
    judge.same("metadata service", None, &metadata);
    // Both programs refuse a profile that does not exist.
    assert!(judge.aws(&["--profile", "no", "sts", "get-caller-identity"], &[], "").is_err());
    assert!(
        judge.whoami(&["--profile", "no"], &[], "").unwrap_err().contains("could not be found")
    );
}

/// Programs that do not share the AWS CLI's cache ask for a code at every run.
#[test]
fn an_mfa_code_is_asked_for_once_between_the_two() {
    let Some(judge) = Judge::new() else { return };
    let (id, secret) = judge.user("with-mfa");
    let role = "arn:aws:iam::123456789012:role";
    let serial = "arn:aws:iam::123456789012:mfa/with-mfa";
    let profile = |name: &str| {
        format!(
            "[profile {name}]\nrole_arn = {role}/{name}\nsource_profile = base\nmfa_serial = {serial}\n\
             external_id = x-1\nduration_seconds = 3600\n"
        )
    };
    let config = format!(
        "[profile base]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n{}{}",
        profile("First"),
        profile("Second")
    );
    judge.file(".aws/config", &config);
    let arn = |text: Result<String, String>| {
        let value: Value = serde_json::from_str(&text.expect("an identity")).unwrap();
        value["Arn"].as_str().unwrap().to_owned()
    };
    let command =
        |profile| ["--profile", profile, "sts", "get-caller-identity", "--output", "json"];

    // `whoami` asks for the code, and `aws` finds the session in the cache.
    let asked = judge.whoami(&["--profile", "First"], &[], "").unwrap_err();
    assert!(
        asked.contains("Enter MFA code for arn:aws:iam::123456789012:mfa/with-mfa: "),
        "{asked}"
    );
    let ours = arn(judge.whoami(&["--profile", "First"], &[], "123456\n"));
    assert_eq!(arn(judge.aws(&command("First"), &[], "")), ours);
    assert_eq!(arn(judge.whoami(&["--profile", "First"], &[], "")), ours);
    let folder = judge.home.path().join(".aws/cli/cache");
    #[cfg(unix)]
    for entry in std::fs::read_dir(&folder).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    // `aws` asks for the code, and `whoami` finds the session in the cache.
    assert!(judge.whoami(&["--profile", "Second"], &[], "").is_err());
    let theirs = arn(judge.aws(&command("Second"), &[], "123456\n"));
    assert_eq!(arn(judge.whoami(&["--profile", "Second"], &[], "")), theirs);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
}

/// Errors that a new user meets name the next step: no home folder, wrong arguments, no
/// credentials. A query cuts the answer as that of `aws` does.
#[test]
fn a_new_user_is_told_what_to_do() {
    let Some(judge) = Judge::new() else { return };
    assert!(judge.whoami(&["--help"], &[], "").unwrap().contains("usage: whoami"));
    for (arguments, told) in [
        (&["--profil", "x"][..], "unknown argument --profil; see whoami --help"),
        (&["--profile"], "--profile needs a value"),
        (&["--query", "["], "query"),
        (&["--endpoint-url", "nonsense"], "endpoint is not"),
        (&[], "AWS_ACCESS_KEY_ID is not set"),
    ] {
        let env = [("HOME", "/nowhere"), ("AWS_ENDPOINT_URL", "")];
        let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let with_keys = if arguments.is_empty() { &[][..] } else { &keys[..] };
        let error = judge.whoami(arguments, &[&env[..], with_keys].concat(), "").unwrap_err();
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
    let (id, secret) = judge.user("queried");
    let keys = [("AWS_ACCESS_KEY_ID", id.as_str()), ("AWS_SECRET_ACCESS_KEY", secret.as_str())];
    let query = ["--query", "[Account, Arn]"];
    let command = ["sts", "get-caller-identity", "--output", "json"];
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let ours = json(judge.whoami(&query, &keys, "").unwrap());
    assert_eq!(ours, json(judge.aws(&[&command[..], &query].concat(), &keys, "").unwrap()));
}
