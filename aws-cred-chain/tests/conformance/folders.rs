//! Cases in folders: environment, files, recorded traffic and the expected result.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_cred_chain::memory::{MapEnv, MapFiles};
use aws_cred_chain::testing::VirtualClock;
use aws_cred_chain::{
    BoxFuture, Chain, Command, CommandOutput, Context, Error, Options, ProcessShell, RunCommand,
    Source, block_on,
};
use serde_json::{Value, json};

use crate::logs::Logs;
use crate::replay::Replay;
use crate::{part, report};

fn read(path: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

fn files(folder: &Path) -> MapFiles {
    let files = MapFiles::default();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() {
            let inside = Path::new("/").join(path.strip_prefix(folder).unwrap());
            files.put(inside, std::fs::read(&path).unwrap());
        }
    }
    files
}

/// Runs the commands of the cases (`echo`, `base64`) on this machine.
#[derive(Debug)]
struct Real;

impl RunCommand for Real {
    fn run(&self, command: Command) -> BoxFuture<'_, std::io::Result<CommandOutput>> {
        let output = std::process::Command::new(&command.program).args(&command.arguments).output();
        Box::pin(std::future::ready(
            output.map(|output| {
                CommandOutput::new(output.status.code().unwrap_or(-1), output.stdout)
            }),
        ))
    }
}

struct Case {
    name: String,
    folder: PathBuf,
    expected: Value,
}

fn cases(part_name: &str) -> Option<Vec<Case>> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(part(part_name)?).unwrap() {
        let folder = entry.unwrap().path();
        let Some(test) = read(&folder.join("test-case.json")) else {
            continue;
        };
        cases.push(Case {
            name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
            expected: test["result"].clone(),
            folder,
        });
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Some(cases)
}

/// Returns all strings of ten characters or more that the case has under the name of a secret, in
/// its files, environment, traffic and result.
fn secrets(case: &Case, files: &MapFiles, env: &Value, traffic: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut texts: Vec<String> = Vec::new();
    for path in files.paths() {
        texts.push(String::from_utf8_lossy(&files.content(path).unwrap()).into_owned());
    }
    for event in traffic["events"].as_array().into_iter().flatten() {
        texts.push(event["action"]["Data"]["data"]["Utf8"].as_str().unwrap_or_default().to_owned());
    }
    for (key, value) in env.as_object().into_iter().flatten() {
        texts.push(format!("{key} = {}", value.as_str().unwrap_or_default()));
    }
    for text in texts {
        for line in text.replace(['{', '}', ','], "\n").replace('<', "\n").lines() {
            let Some((key, value)) = line.split_once(['=', ':', '>']) else {
                continue;
            };
            let key = key.trim().trim_matches('"').to_ascii_lowercase();
            let means_secret = [
                "secret",
                "sessiontoken",
                "session_token",
                "accesstoken",
                "refreshtoken",
                "\"token",
                "clientsecret",
            ];
            if means_secret.iter().any(|word| key.contains(word.trim_matches('"')))
                || key == "token"
            {
                found.insert(value.trim().trim_matches('"').to_owned());
            }
        }
    }
    for key in ["secret_access_key", "session_token", "token"] {
        if let Some(secret) = case.expected["Ok"][key].as_str() {
            found.insert(secret.to_owned());
        }
    }
    found.retain(|secret| secret.len() >= 6 && !secret.contains("://") && !secret.starts_with('/'));
    found
}

/// Returns whether an error text of the suite, in one SDK's wording, is of the same kind as
/// `error`.
fn same_kind(text: &str, error: &Error) -> bool {
    let text = text.to_ascii_lowercase();
    let has = |word: &str| text.contains(word);
    if has("not enabled") {
        // If a profile names the source, its absence is a wrong setting in this crate.
        return matches!(error, Error::NotConfigured { .. } | Error::Invalid { .. });
    }
    if has("no such file") && has("sso") {
        return matches!(error, Error::LoginRequired { .. });
    }
    if has("invalididentitytoken") || has("accessdenied") {
        return matches!(error, Error::Denied { .. });
    }
    if has("access token instead") || has("no such file") || has("could not parse profile") {
        return matches!(error, Error::Invalid { .. });
    }
    if has("invalid json") || has("forbidden") || has("error occurred while loading") {
        return matches!(
            error,
            Error::Failed { .. } | Error::Denied { .. } | Error::Invalid { .. }
        );
    }
    !matches!(error, Error::TimedOut { .. })
}

fn run(case: &Case, part_name: &str) -> Result<(), String> {
    let env = read(&case.folder.join("env.json")).unwrap_or_else(|| json!({}));
    let pairs =
        env.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()));
    let traffic =
        read(&case.folder.join("http-traffic.json")).unwrap_or_else(|| json!({"events": []}));
    let files = files(&case.folder.join("fs"));
    let secrets = secrets(case, &files, &env, &traffic);
    let replay = Replay::new(&traffic);
    let context = Context::empty(VirtualClock::new(SystemTime::UNIX_EPOCH))
        .with_env(MapEnv::new(pairs))
        .with_files(files.clone())
        .with_cache_files(files)
        .with_http(replay.clone())
        .with_commands(Real);
    let mut options = Options::default();
    // The recording SDK passes commands to a shell. The AWS CLI and this crate's default do not.
    options.process_shell = ProcessShell::System;
    if part_name.ends_with("profile-provider") {
        for source in
            [Source::Environment, Source::WebIdentity, Source::Container, Source::InstanceMetadata]
        {
            options = options.without(source);
        }
    }
    if let Some(attempts_max) = replay.attempts_max() {
        options.attempts_max = attempts_max;
    }
    let chain = Chain::new(context, options);
    let planned: Vec<Source> = block_on(chain.plan()).unwrap().asked().collect();
    let logs = Logs::default();
    let (problem, shown) = tracing::subscriber::with_default(logs.clone(), || {
        if part_name.contains("token") {
            token(case, &chain)
        } else {
            credentials(case, &chain, &planned)
        }
    });
    let mut problems = replay.problems();
    problems.extend(problem);
    let told = logs.text() + &shown;
    for secret in secrets {
        if told.contains(&secret) {
            problems.push(format!("a secret was shown: {secret}\nin {told}"));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("{}: {}", case.name, problems.join("; ")))
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn credentials(case: &Case, chain: &Chain, planned: &[Source]) -> (Option<String>, String) {
    let resolved = block_on(chain.resolve());
    let trace = match &resolved {
        Ok(resolved) => &resolved.trace,
        Err(unresolved) => &unresolved.trace,
    };
    let asked: Vec<Source> = trace.steps().iter().filter_map(|step| step.source).collect();
    if !planned.starts_with(&asked) || (resolved.is_ok() && asked != planned) {
        return (Some(format!("planned {planned:?}, asked {asked:?}")), String::new());
    }
    let shown = match &resolved {
        Ok(resolved) => format!("{resolved:?} {}", resolved.trace),
        Err(unresolved) => {
            format!(
                "{unresolved:?} {unresolved} {} {}",
                unresolved.error.report(),
                unresolved.trace
            )
        }
    };
    let problem = match (&resolved, case.expected["ErrorContains"].as_str()) {
        (Err(unresolved), Some(text)) => {
            let good = same_kind(text, &unresolved.error);
            (!good).then(|| format!("{:?} is not `{text}`", unresolved.error))
        }
        (Ok(resolved), None) => {
            let found = &resolved.credentials;
            let mut actual = json!({
                "access_key_id": found.access_key_id,
                "secret_access_key": found.secret_access_key.expose(),
                "session_token": found.session_token.as_ref().map(|token| token.expose()),
                "account_id": found.account_id,
                "expiry": found.expires_at.map(unix),
            });
            let wanted = case.expected["Ok"].as_object().unwrap();
            actual.as_object_mut().unwrap().retain(|key, _| wanted.contains_key(key));
            (actual != case.expected["Ok"])
                .then(|| format!("{actual}, not {}", case.expected["Ok"]))
        }
        _ => Some(format!("{resolved:?}, not {}", case.expected)),
    };
    (problem, shown)
}

fn token(case: &Case, chain: &Chain) -> (Option<String>, String) {
    let found = block_on(chain.token());
    let shown = format!("{found:?}");
    let problem = match (&found, case.expected.get("Ok")) {
        (Ok(token), Some(wanted)) => {
            let ends = wanted["expiration"].as_str().map(crate::signing::time);
            let good = wanted["token"] == token.token.expose()
                && (ends.is_none() || ends == token.expires_at);
            (!good).then(|| "another token, or another end of it".to_owned())
        }
        (Err(error), None) => {
            let text = case.expected["ErrorContains"].as_str().unwrap();
            (!same_kind(text, error)).then(|| format!("{error:?} is not `{text}`"))
        }
        _ => Some(format!("{found:?}, not {}", case.expected)),
    };
    (problem, shown)
}

fn run_all(part_name: &str) {
    let Some(cases) = cases(part_name) else {
        return;
    };
    let failures: Vec<String> =
        cases.iter().filter_map(|case| run(case, part_name).err()).collect();
    report(part_name, cases.len(), &failures);
}

#[test]
fn conformance_default_credential_chain() {
    run_all("aws-config/default-credential-provider-chain");
}

#[test]
fn conformance_profile_provider() {
    run_all("aws-config/profile-provider");
}

#[test]
fn conformance_default_token_chain() {
    run_all("aws-config/default-token-provider-chain");
}
