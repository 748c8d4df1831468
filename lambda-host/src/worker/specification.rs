//! The specification of a function's sandbox: base system, runtime, code, environment, limits.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_sandbox::{Limits, Root, SandboxSpec, SmallFile};
use sha2::{Digest as _, Sha256};

use super::date;
use super::failure::Failure;
use super::protocol::{Deployment, SandboxId};
use super::runtime::{Entry, RuntimeImage, Runtimes};
use crate::function::config::FunctionConfig;

/// Where the files of a function are on this machine.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    pub(super) code: PathBuf,
    pub(super) layers: Option<PathBuf>,
}

/// Describes a sandbox for `deployment`, whose files are in `folders`.
pub(super) fn specify(
    deployment: &Deployment,
    log_stream: &str,
    runtimes: &Runtimes,
    folders: &Folders,
) -> Result<SandboxSpec, Failure> {
    let config = &deployment.config;
    // The runtime was there when the function was deployed; a host may have been started without
    // it.
    let image = runtimes.image(&config.runtime).ok_or_else(Failure::no_entry_point)?;
    let environment = environment(deployment, image, log_stream);
    let layers = folders.layers.as_deref();
    let mut root = Root::of_machine();
    for mount in &image.mounts {
        root = root.with_bind(&mount.source, &mount.target);
    }
    let command = match &image.entry {
        Entry::Bootstrap if is_file(&folders.code.join("bootstrap")) => {
            vec!["/var/task/bootstrap".to_owned()]
        }
        Entry::Bootstrap if layers.is_some_and(|it| is_file(&it.join("bootstrap"))) => {
            vec!["/opt/bootstrap".to_owned()]
        }
        Entry::Bootstrap => return Err(Failure::no_entry_point()),
        Entry::Program(words) => wrapped(words, &environment),
    };
    for file in root.files.iter_mut().filter(|file| file.path.starts_with("/etc")) {
        // The user's name on Lambda, which some programs look at.
        if let Some(at) = find(&file.content, b"\nsandbox:") {
            file.content.splice(at + 1..at + 8, USER.bytes());
        }
    }
    match layers {
        Some(layers) => root = root.with_bind(layers, LAYERS_ROOT),
        None => root.folders.push(LAYERS_ROOT.into()),
    }
    if let Entry::Program(words) = &image.entry {
        root.files.push(SmallFile::new(ENTRY_POINT, entry_point(words)).executable());
    }
    // The last: roots that differ by it alone have the rest in common.
    let root = root.with_bind(&folders.code, TASK_ROOT);
    let mut spec = SandboxSpec::new(root, command).named(config.name.as_str());
    spec.working_directory = TASK_ROOT.into();
    spec.limits = limits(config);
    let environment = environment.into_iter();
    spec.environment = environment.map(|(name, value)| (name.into(), value.into())).collect();
    Ok(spec)
}

/// The whole environment, each variable once: what Lambda defines, over that what the runtime does,
/// over that what the function's settings do. Settings cannot name a reserved variable.
///
/// Source: AWS, "Defined runtime environment variables". The `AWS_XRAY_DAEMON_ADDRESS` in it is
/// left out: there is no daemon. `AWS_LAMBDA_RUNTIME_API` is added by the sandbox, credentials by
/// the function's role.
fn environment(
    deployment: &Deployment,
    image: &RuntimeImage,
    log_stream: &str,
) -> BTreeMap<String, String> {
    let config = &deployment.config;
    let mut environment = platform_variables(deployment, log_stream);
    let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
    set("_HANDLER", config.handler.clone());
    set("LANG", "en_US.UTF-8".to_owned());
    set("TZ", ":UTC".to_owned());
    let (mut programs, mut libraries) = (PROGRAMS.to_owned(), LIBRARIES.to_owned());
    if matches!(image.entry, Entry::Program(_)) {
        programs.insert_str(0, "/var/lang/bin:");
        libraries.insert_str(0, "/var/lang/lib:");
        set("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", config.runtime));
        // What the shell that starts a runtime on Lambda leaves.
        set("PWD", TASK_ROOT.to_owned());
        set("SHLVL", "0".to_owned());
    }
    set("PATH", programs);
    set("LD_LIBRARY_PATH", libraries);
    environment.extend(image.environment.clone());
    let own = config.environment.iter();
    environment.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if config.runtime.starts_with("nodejs") {
        let heap = format!("--max-old-space-size={}", heap_mb(config.memory_mb));
        // Node.js takes the last of two: the function's own option wins.
        let options = match environment.get("NODE_OPTIONS") {
            Some(own) => format!("{heap} {own}"),
            None => heap,
        };
        environment.insert("NODE_OPTIONS".to_owned(), options);
    }
    environment
}

/// Returns the limits of a function's sandbox.
pub(super) fn limits(config: &FunctionConfig) -> Limits {
    let mut limits = Limits::for_memory_mb(config.memory_mb);
    // As Lambda: a small function has more of a processor until its init is over.
    limits.init_cpus = Some(limits.cpus.max(INIT_CPUS_MIN));
    limits.scratch_bytes = u64::from(config.ephemeral_storage_mb) << 20;
    limits
}

/// The variables that Lambda sets for every function.
pub(super) fn platform_variables(
    deployment: &Deployment,
    log_stream: &str,
) -> BTreeMap<String, String> {
    let config = &deployment.config;
    let mut environment = BTreeMap::new();
    let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
    set("AWS_REGION", deployment.region.clone());
    set("AWS_DEFAULT_REGION", deployment.region.clone());
    set("AWS_LAMBDA_FUNCTION_NAME", config.name.as_str().to_owned());
    set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", config.memory_mb.to_string());
    set("AWS_LAMBDA_FUNCTION_VERSION", deployment.version.to_string());
    let provisioned = if deployment.provisioned { "provisioned-concurrency" } else { "on-demand" };
    set("AWS_LAMBDA_INITIALIZATION_TYPE", provisioned.to_owned());
    set("AWS_LAMBDA_LOG_GROUP_NAME", config.log_group());
    if config.logging.json {
        set("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned());
        let level = config.logging.application_level.as_deref().unwrap_or("INFO");
        set("AWS_LAMBDA_LOG_LEVEL", level.to_owned());
    }
    set(LOG_STREAM_VARIABLE, log_stream.to_owned());
    set("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".to_owned());
    set("LAMBDA_TASK_ROOT", TASK_ROOT.to_owned());
    set("LAMBDA_RUNTIME_DIR", "/var/runtime".to_owned());
    environment
}

/// Makes an environment that of a function that starts from a snapshot: all its sandboxes have it.
///
/// Source: AWS, "Defined runtime environment variables": the names of the log's group and stream
/// are not there for SnapStart.
pub(super) fn for_snapshot(environment: &mut Vec<(OsString, OsString)>) {
    environment
        .retain(|(name, _)| name != "AWS_LAMBDA_LOG_GROUP_NAME" && name != LOG_STREAM_VARIABLE);
    let kind = environment.iter_mut().find(|(name, _)| name == "AWS_LAMBDA_INITIALIZATION_TYPE");
    if let Some((_, kind)) = kind {
        *kind = "snap-start".into();
    }
}

/// Credentials that no service of AWS takes, for functions without those of a role: AWS's SDKs look
/// for some at once.
pub(super) fn stand_in_credentials() -> impl Iterator<Item = (OsString, OsString)> {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "ASIAFUNCTIONWITHOUT0"),
        ("AWS_SECRET_ACCESS_KEY", "the host gives functions no credentials"),
        ("AWS_SESSION_TOKEN", "the host gives functions no credentials"),
    ];
    variables.into_iter().map(|(name, value)| (name.into(), value.into()))
}

/// The heap that Node.js may fill, in MB. Without a limit it goes by the machine's memory, and does
/// not collect before the sandbox's is over.
fn heap_mb(memory_mb: u32) -> u32 {
    memory_mb.saturating_sub(NODE_MB.max(memory_mb / 10))
}

/// The command that starts a runtime: by the function's `AWS_LAMBDA_EXEC_WRAPPER`, where its
/// settings name one.
///
/// Source: AWS, "Modifying the runtime environment", on wrapper scripts, which have no effect on
/// `provided` runtimes.
fn wrapped(words: &[String], environment: &BTreeMap<String, String>) -> Vec<String> {
    if environment.get("AWS_LAMBDA_EXEC_WRAPPER").is_none_or(String::is_empty) {
        return words.to_vec();
    }
    let shell = ["/bin/sh", "-c", WRAPPER, "bootstrap"].map(str::to_owned);
    shell.into_iter().chain(words.iter().cloned()).collect()
}

/// The script that starts a runtime in AWS's base images, which programs of functions may execute:
/// its argument is the handler.
fn entry_point(words: &[String]) -> String {
    let words = words.iter().map(|word| format!(" '{}'", word.replace('\'', r"'\''")));
    let command: String = words.collect();
    format!("#!/bin/sh\n[ $# -eq 0 ] || export _HANDLER=\"$1\"\nexec{command}\n")
}

/// The name of the log stream of a sandbox that starts `now`, as on Lambda: `2024/02/29/[$LATEST]`,
/// and 32 hexadecimal digits that no other sandbox has.
pub(super) fn log_stream(deployment: &Deployment, sandbox: SandboxId, now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (year, month, day) = date::civil(since.as_secs() / 86_400);
    let mut hash = Sha256::new();
    hash.update(&deployment.arn);
    hash.update(deployment.number.to_le_bytes());
    hash.update(sandbox.0.to_le_bytes());
    hash.update(since.as_nanos().to_le_bytes());
    let unique: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{year:04}/{month:02}/{day:02}/[{}]{unique}", deployment.version)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

const LOG_STREAM_VARIABLE: &str = "AWS_LAMBDA_LOG_STREAM_NAME";
/// Where a function's code is in its sandbox.
const TASK_ROOT: &str = "/var/task";
/// Where the files of its layers are.
const LAYERS_ROOT: &str = "/opt";
const PROGRAMS: &str = "/usr/local/bin:/usr/bin/:/bin:/opt/bin";
const LIBRARIES: &str =
    "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib";
/// The script that starts the runtime.
const ENTRY_POINT: &str = "/lambda-entrypoint.sh";
/// The name of the functions' user.
const USER: &str = "sbx_user1051";
/// Processors that each sandbox may use during init.
const INIT_CPUS_MIN: f64 = 1.0;
/// What Node.js takes beside its heap, in MB.
const NODE_MB: u32 = 39;
const WRAPPER: &str = r#"wrapper=$AWS_LAMBDA_EXEC_WRAPPER
if [ ! -f "$wrapper" ]; then echo "$wrapper: does not exist"; exit 127; fi
if [ ! -x "$wrapper" ]; then echo "$wrapper: is not an executable"; exit 126; fi
exec "$wrapper" "$@""#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeDigest;
    use crate::function::version::Version;

    fn deployment(runtime: &str) -> Deployment {
        let config = FunctionConfig::new("f", runtime, "app.handler").unwrap();
        Deployment {
            number: 1,
            arn: "arn:aws:lambda:eu-west-1:123456789012:function:f".to_owned(),
            region: "eu-west-1".to_owned(),
            version: Version::Latest,
            config: std::sync::Arc::new(config.with_memory_mb(256)),
            code: CodeDigest::of(b""),
            provisioned: false,
            account: crate::function::account::AccountIndex::default(),
        }
    }

    fn of(deployment: &Deployment) -> BTreeMap<String, String> {
        let runtime = &deployment.config.runtime;
        let image = if runtime.starts_with("provided") {
            RuntimeImage::bootstrap()
        } else {
            RuntimeImage::program(["/bin/program"]).with_environment("TZ", "runtime's")
        };
        environment(deployment, &image, "stream")
    }

    #[test]
    fn each_variable_that_lambda_defines_is_there() {
        let managed = of(&deployment("python3.12"));
        for (name, expected) in [
            ("_HANDLER", "app.handler"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_EXECUTION_ENV", "AWS_Lambda_python3.12"),
            ("AWS_LAMBDA_FUNCTION_NAME", "f"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/f"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "stream"),
            ("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR"),
            ("LAMBDA_TASK_ROOT", "/var/task"),
            ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
            ("LANG", "en_US.UTF-8"),
            ("PATH", "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin"),
            (
                "LD_LIBRARY_PATH",
                "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:\
                 /var/task/lib:/opt/lib",
            ),
            ("PWD", "/var/task"),
            ("SHLVL", "0"),
            ("TZ", "runtime's"),
        ] {
            assert_eq!(managed.get(name).map(String::as_str), Some(expected), "{name}");
        }
        assert_eq!(managed.len(), 19, "{managed:?}");
    }

    #[test]
    fn a_function_with_its_own_runtime_has_no_variables_of_a_managed_one() {
        let own = of(&deployment("provided.al2023"));
        assert_eq!(own["PATH"], "/usr/local/bin:/usr/bin/:/bin:/opt/bin");
        assert!(own["LD_LIBRARY_PATH"].starts_with("/lib64:/usr/lib64:"));
        assert_eq!(own["TZ"], ":UTC");
        for name in ["AWS_EXECUTION_ENV", "NODE_OPTIONS", "PWD", "SHLVL"] {
            assert!(!own.contains_key(name), "{name}");
        }
    }

    #[test]
    fn the_functions_settings_win() {
        let mut deployment = deployment("python3.12");
        for name in ["TZ", "PATH", "LANG", "LD_LIBRARY_PATH", "NODE_PATH", "PYTHONPATH"] {
            let config = std::sync::Arc::make_mut(&mut deployment.config);
            config.environment.insert(name, "own");
        }
        let found = of(&deployment);
        assert!(deployment.config.environment.iter().all(|(name, value)| found[name] == value));
    }

    #[test]
    fn node_gets_a_heap_that_its_memory_holds() {
        for (memory_mb, expected) in
            [(128, 89), (390, 351), (391, 352), (1024, 922), (10_240, 9216)]
        {
            assert_eq!(heap_mb(memory_mb), expected, "{memory_mb}");
        }
        let mut deployment = deployment("nodejs20.x");
        assert_eq!(of(&deployment)["NODE_OPTIONS"], "--max-old-space-size=217");
        let own = "--max-old-space-size=50";
        let config = std::sync::Arc::make_mut(&mut deployment.config);
        config.environment.insert("NODE_OPTIONS", own);
        let options = &of(&deployment)["NODE_OPTIONS"];
        assert_eq!(options, "--max-old-space-size=217 --max-old-space-size=50");
    }

    #[test]
    fn a_wrapper_starts_the_runtime_with_its_whole_command() {
        let words = ["/bin/program", "-x"].map(str::to_owned);
        let check = |wrapper: Option<&str>| {
            let wrapper = wrapper.map(str::to_owned);
            let name = "AWS_LAMBDA_EXEC_WRAPPER".to_owned();
            wrapped(&words, &wrapper.map(|it| (name, it)).into_iter().collect())
        };
        assert_eq!(check(None), words);
        assert_eq!(check(Some("")), words);
        let command = check(Some("/opt/wrapper"));
        assert_eq!(
            (&command[0], &command[3], &command[4..]),
            (&"/bin/sh".into(), &"bootstrap".into(), &words[..])
        );
    }

    #[test]
    fn the_entry_point_starts_the_runtime_with_its_words_as_they_are() {
        let words = ["/usr/bin/printf", "%s|%s|%s", "a b", "it's", "$HOME"].map(str::to_owned);
        let script = entry_point(&words);
        let mut shell = std::process::Command::new("/bin/sh");
        let output = shell.args(["-c", &script, "entry", "app.handler"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a b|it's|$HOME");
        assert!(script.contains(r#"export _HANDLER="$1""#), "{script}");
    }

    #[test]
    fn log_streams_have_a_date_and_are_unique() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let name = |sandbox, now| log_stream(&deployment("python3.12"), SandboxId(sandbox), now);
        let first = name(1, at(1_709_251_199));
        let (date, unique) = first.split_at("2024/02/29/[$LATEST]".len());
        assert_eq!(date, "2024/02/29/[$LATEST]");
        assert!(unique.len() == 32 && unique.bytes().all(|it| it.is_ascii_hexdigit()), "{unique}");
        assert_ne!(first, name(2, at(1_709_251_199)));
        assert!(name(1, at(1_709_251_200)).starts_with("2024/03/01/"));
    }
}
