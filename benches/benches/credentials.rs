//! Measures how long credentials take to resolve, beside aws-config and reqsign in the same run.
//!
//! ```text
//! cargo bench -p benches --features credentials --bench credentials
//! ```
//!
//! Each row runs in a process of its own, whose environment holds only the variables of the row.
//! Within it the three libraries take turns for 40 rounds. A figure is the median of the rounds,
//! with the quartiles.
//!
//! - Cold: a new provider resolves once.
//! - Warm: the same provider resolves again. This crate then checks whether its files have changed.
//!   aws-config never does, so a further row has this crate check at most once a second.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::future::Future;
use std::hint::black_box;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_cred_chain::{Cache, Chain, Context, Credentials, Options};
use aws_credential_types::provider::ProvideCredentials as _;
use reqsign_aws_v4::DefaultCredentialProvider;
use reqsign_core::ProvideCredential as _;

const ROUNDS: usize = 40;

fn main() {
    let row = std::env::var("CREDENTIALS_ROW");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match row.as_deref() {
        Ok("cached") => runtime.block_on(cached()),
        Ok("unanswered") => runtime.block_on(unanswered()),
        Ok(row) => runtime.block_on(resolve(row)),
        Err(_) => run_rows(),
    }
}

fn run_rows() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let keys = "aws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n";
    let profile = write("static", &format!("[default]\nregion = us-east-1\n{keys}"));
    let mut many = String::new();
    for n in 0..199 {
        many.push_str(&format!("[profile p{n}]\nregion = eu-west-1\noutput = json\n{keys}"));
    }
    let many = write("many", &format!("{many}[default]\n{keys}"));
    let json = r#"{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "secret", "SessionToken": "t", "Expiration": "2099-01-01T00:00:00Z"}"#;
    let json = write("process.json", json);
    let process = write("process", &format!("[default]\ncredential_process = cat {json}\n"));
    // This crate does not keep what it read from a file that changed just before.
    std::thread::sleep(Duration::from_secs(3));
    println!(
        "| row | aws-cred-chain | aws-config | reqsign | aws-config / ours | reqsign / ours |"
    );
    println!("|---|---|---|---|---|---|");
    let id = ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
    child("environment", home.path(), &[id, ("AWS_SECRET_ACCESS_KEY", "secret")]);
    child("static profile", home.path(), &[("AWS_CONFIG_FILE", &profile)]);
    child("200 profiles", home.path(), &[("AWS_CONFIG_FILE", &many)]);
    child("process (cat)", home.path(), &[("AWS_CONFIG_FILE", &process)]);
    child("cached", home.path(), &[]);
    // The kernel accepts connections to this socket, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    child("unanswered", home.path(), &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)]);
}

fn child(row: &str, home: &Path, env: &[(&str, &str)]) {
    let status = Command::new(std::env::current_exe().unwrap())
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("AWS_SHARED_CREDENTIALS_FILE", home.join("credentials"))
        .env("CREDENTIALS_ROW", row)
        .envs(env.iter().copied())
        .status()
        .unwrap();
    assert!(status.success(), "{row}");
}

fn reqsign_context() -> reqsign_core::Context {
    reqsign_core::Context::new()
        .with_file_read(reqsign_file_read_tokio::TokioFileRead)
        .with_http_send(reqsign_http_send_reqwest::ReqwestHttpSend::default())
        .with_command_execute(reqsign_command_execute_tokio::TokioCommandExecute)
        .with_env(reqsign_core::OsEnv)
}

fn ours() -> Chain {
    Chain::new(Context::real(), Options::default())
}

/// The quartiles of a set of times, in nanoseconds: the first, the median, the third.
#[derive(Clone, Copy)]
struct Spread([f64; 3]);

impl Spread {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self([1, 2, 3].map(|quarter| samples[(samples.len() - 1) * quarter / 4]))
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, middle, high] = self.0.map(|nanos| nanos / 1e3);
        write!(f, "{middle:.3} us ({low:.3}-{high:.3})")
    }
}

/// Returns the mean time of one of `count` calls, in nanoseconds.
async fn timed<F: Future>(count: u32, mut call: impl FnMut() -> F) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        black_box(call().await);
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(count)
}

async fn resolve(row: &str) {
    let count = if row.starts_with("process") { 1 } else { 20 };
    let mut cold = [const { Vec::new() }; 3];
    let mut warm = [const { Vec::new() }; 3];
    let mut kept = Vec::new();
    let chain = ours();
    let mut options = Options::default();
    options.files_kept_for = Duration::from_secs(1);
    let keeping = Chain::new(Context::real(), options);
    keeping.resolve().await.unwrap();
    let aws = DefaultCredentialsChain::builder().build().await;
    let context = reqsign_context();
    let reqsign = DefaultCredentialProvider::new();
    let check = [
        chain.resolve().await.unwrap().credentials.access_key_id,
        aws.provide_credentials().await.unwrap().access_key_id().to_owned(),
        reqsign.provide_credential(&context).await.unwrap().unwrap().access_key_id,
    ];
    assert!(check.iter().all(|id| id == "AKIDEXAMPLE"), "{check:?}");
    let keeps = || async { keeping.resolve().await.unwrap() };
    for round in 0..ROUNDS {
        // The first library of a round finds the processor's caches as another program left them.
        // The libraries take turns at being first.
        for turn in 0..3 {
            match (round + turn) % 3 {
                0 => {
                    let made = || async { ours().resolve().await.unwrap() };
                    cold[0].push(timed(count, made).await);
                    let again = || async { chain.resolve().await.unwrap() };
                    warm[0].push(timed(count, again).await);
                    kept.push(timed(count, keeps).await);
                }
                1 => {
                    let made = || async {
                        let aws = DefaultCredentialsChain::builder().build().await;
                        aws.provide_credentials().await.unwrap()
                    };
                    cold[1].push(timed(count, made).await);
                    let again = || async { aws.provide_credentials().await.unwrap() };
                    warm[1].push(timed(count, again).await);
                }
                _ => {
                    // The HTTP client of reqsign takes milliseconds to make and is not used here,
                    // so it is made once.
                    let made = || async {
                        let provider = DefaultCredentialProvider::new();
                        provider.provide_credential(&context).await.unwrap().unwrap()
                    };
                    cold[2].push(timed(count, made).await);
                    let again =
                        || async { reqsign.provide_credential(&context).await.unwrap().unwrap() };
                    warm[2].push(timed(count, again).await);
                }
            }
        }
    }
    let looks_rarely = [kept, warm[1].clone(), warm[2].clone()];
    let mut rows = vec![("cold", cold), ("warm", warm)];
    if row.contains("profile") {
        rows.push(("warm, looking once a second", looks_rarely));
    }
    for (kind, samples) in rows {
        let [ours, aws, reqsign] = samples.map(Spread::of);
        let ratio = |other: Spread| other.0[1] / ours.0[1];
        println!(
            "| {row}, {kind} | {ours} | {aws} | {reqsign} | {:.1} | {:.1} |",
            ratio(aws),
            ratio(reqsign)
        );
    }
}

/// Measures a read from the cache, beside its floor, a read of the machine's clock. The peers keep
/// credentials inside their signers and clients, where a read cannot be told from a signature.
async fn cached() {
    const READS: u32 = 100_000;
    let context = Context::real();
    let expires = std::time::SystemTime::now() + Duration::from_secs(3600);
    let keys = Credentials::new("AKIDEXAMPLE", "secret").with_expires_at(expires);
    let cache = Cache::new(context, keys);
    cache.credentials().await.unwrap();
    let mut samples = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        samples[0].push(timed(READS, || cache.credentials()).await);
        samples[1].push(timed(READS, || async { std::time::SystemTime::now() }).await);
        let start = Instant::now();
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { timed(READS / 64, || cache.credentials()).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        samples[2].push(start.elapsed().as_secs_f64() * 1e9 / f64::from(READS / 64 * 64));
    }
    let [alone, floor, shared] = samples.map(|samples| Spread::of(samples).0[1]);
    println!("| cached read, alone | {alone:.1} ns | floor: clock {floor:.1} ns | - | - | - |");
    println!("| cached read, 64 tasks, of all | {shared:.1} ns | - | - | - | - |");
}

async fn unanswered() {
    async fn time<F: Future>(future: F) -> String {
        const PATIENCE: Duration = Duration::from_secs(10);
        let start = Instant::now();
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(_) => format!("{:.3} s", start.elapsed().as_secs_f64()),
            Err(_) => format!("over {} s", PATIENCE.as_secs()),
        }
    }
    let chain = ours();
    let ours = time(async {
        let error = chain.resolve().await.unwrap_err();
        assert!(error.trace.to_string().contains("metadata token, attempt 1"), "{}", error.trace);
    });
    let ours = ours.await;
    let aws = time(async {
        let chain = DefaultCredentialsChain::builder().build().await;
        assert!(chain.provide_credentials().await.is_err());
    });
    let aws = aws.await;
    let context = reqsign_context();
    let reqsign =
        time(async { DefaultCredentialProvider::new().provide_credential(&context).await });
    println!(
        "| nothing configured, metadata silent | {ours} | {aws} | {} | - | - |",
        reqsign.await
    );
}
