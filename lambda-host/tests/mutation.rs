//! Bodies and paths that real calls become when bytes of them change: the server answers each, and
//! none is its own fault. Fuzzing with coverage (`cargo xtask fuzz`) runs the same calls; this
//! needs no other build.
#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_host::{Host, Target, http};
use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Calls as clients make them: the method, the path with its query, the body.
const CALLS: &[(&str, &str, &str)] = &[
    ("GET", "/2015-03-31/functions?MaxItems=10&Marker=f&FunctionVersion=ALL", ""),
    (
        "GET",
        "/2015-03-31/functions/arn:aws:lambda:us-east-1:123456789012:function:f?Qualifier=1",
        "",
    ),
    ("POST", "/2015-03-31/functions/f:live/invocations", r#"{"a":[1,2.5e3,{"b":"\u00e9\\"}]}"#),
    (
        "POST",
        "/2015-03-31/functions",
        r#"{"FunctionName":"g","Runtime":"python3.12","Handler":"x.y","Role":"arn:aws:iam::123456789012:role/r","Code":{"ZipFile":"UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA=="},"Timeout":3,"MemorySize":128,"Environment":{"Variables":{"AB":"c"}},"Tags":{"k":"v"},"Layers":[],"Architectures":["x86_64"],"VpcConfig":{"SubnetIds":[],"SecurityGroupIds":[]},"EphemeralStorage":{"Size":512}}"#,
    ),
    (
        "PUT",
        "/2015-03-31/functions/f/configuration",
        r#"{"Description":"d","Timeout":9,"MemorySize":256,"DeadLetterConfig":{"TargetArn":""},"LoggingConfig":{"LogFormat":"JSON","ApplicationLogLevel":"WARN"},"SnapStart":{"ApplyOn":"None"},"RevisionId":"r"}"#,
    ),
    (
        "PUT",
        "/2015-03-31/functions/f/code",
        r#"{"ZipFile":"UEsDBA==","DryRun":true,"Publish":false}"#,
    ),
    ("POST", "/2015-03-31/functions/f/versions", r#"{"Description":"d","CodeSha256":"x"}"#),
    (
        "POST",
        "/2015-03-31/functions/f/aliases",
        r#"{"Name":"live","FunctionVersion":"1","RoutingConfig":{"AdditionalVersionWeights":{"2":0.5}}}"#,
    ),
    (
        "POST",
        "/2015-03-31/functions/f/policy?Qualifier=live",
        r#"{"StatementId":"s","Action":"lambda:InvokeFunction","Principal":"s3.amazonaws.com","SourceArn":"arn:aws:s3:::b","SourceAccount":"123456789012"}"#,
    ),
    ("PUT", "/2017-10-31/functions/f/concurrency", r#"{"ReservedConcurrentExecutions":5}"#),
    (
        "PUT",
        "/2019-09-25/functions/f/event-invoke-config",
        r#"{"MaximumRetryAttempts":1,"MaximumEventAgeInSeconds":60,"DestinationConfig":{"OnSuccess":{"Destination":"arn:aws:sqs:us-east-1:123456789012:q"}}}"#,
    ),
    (
        "POST",
        "/2021-10-31/functions/f/url",
        r#"{"AuthType":"NONE","Cors":{"AllowOrigins":["*"],"MaxAge":5},"InvokeMode":"BUFFERED"}"#,
    ),
    (
        "POST",
        "/2015-03-31/event-source-mappings",
        r#"{"EventSourceArn":"arn:aws:sqs:us-east-1:123456789012:q","FunctionName":"f","BatchSize":10,"FilterCriteria":{"Filters":[{"Pattern":"{\"body\":{\"a\":[{\"numeric\":[\">\",1]}]}}"}]}}"#,
    ),
    (
        "POST",
        "/2018-10-31/layers/l/versions",
        r#"{"Content":{"ZipFile":"UEsDBA=="},"CompatibleRuntimes":["python3.12"],"LicenseInfo":"MIT"}"#,
    ),
    (
        "POST",
        "/2017-03-31/tags/arn:aws:lambda:us-east-1:123456789012:function:f",
        r#"{"Tags":{"a":"b"}}"#,
    ),
    (
        "DELETE",
        "/2017-03-31/tags/arn:aws:lambda:us-east-1:123456789012:function:f?tagKeys=a&tagKeys=b",
        "",
    ),
    (
        "POST",
        "/2020-04-22/code-signing-configs",
        r#"{"AllowedPublishers":{"SigningProfileVersionArns":["arn"]}}"#,
    ),
];

/// Numbers that only the seed decides (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }

    /// Changes a text at a few places: bytes, pieces of the text itself, and what parsers trip
    /// over.
    fn mutate(&mut self, text: &[u8]) -> Vec<u8> {
        const PIECES: [&str; 16] = [
            "null",
            "-1",
            "1e999",
            "18446744073709551616",
            "\"",
            "{",
            "[[[[[[[[",
            "\\ud800",
            "%00",
            "%2F..",
            ":",
            "$LATEST",
            "é",
            "\0",
            "0.1",
            "true",
        ];
        let mut text = text.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len() + 1);
            let length = self.below(12).min(text.len() - at);
            let from = self.below(text.len());
            let own = text.get(from..text.len().min(from + 8)).unwrap_or_default().to_vec();
            let new = match self.below(5) {
                0 => vec![u8::try_from(self.below(256)).unwrap()],
                1 => Vec::new(),
                2 => own,
                3 => own.repeat(1 + self.below(200)),
                _ => PIECES[self.below(PIECES.len())].as_bytes().to_vec(),
            };
            text.splice(at..at + length, new);
        }
        text
    }
}

async fn serve() -> std::net::SocketAddr {
    let backend = FakeBackend::new().with_handler("f", |_: &_| FakeAnswer::success("1"));
    let host = Host::builder(Arc::new(backend)).start().await.unwrap();
    host.deploy(common::config(), common::zip("1")).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(http::serve(host, listener, std::future::pending())));
    address
}

/// How long a test changes calls: ten minutes in the long run, or as many seconds as
/// `MUTATION_SECONDS` says.
fn seconds() -> u64 {
    let given = std::env::var("MUTATION_SECONDS").ok().and_then(|it| it.parse().ok());
    given.unwrap_or_else(|| if test_support::long() { 600 } else { 2 })
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_calls_are_answered_and_never_the_servers_fault() {
    let seconds = seconds();
    let seed = uuid::Uuid::new_v4().as_u64_pair().0 | 1;
    let (mut random, address) = (Random(seed), serve().await);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut count, mut taken) = (0_u32, 0_u32);
    while Instant::now() < end {
        let (method, path, body) = CALLS[random.below(CALLS.len())];
        let changes_path = random.below(3) == 0;
        let path = if changes_path { random.mutate(path.as_bytes()) } else { path.into() };
        // What a request line cannot hold is no path.
        let path: Vec<u8> = path.into_iter().filter(u8::is_ascii_graphic).collect();
        let body = if changes_path { body.into() } else { random.mutate(body.as_bytes()) };
        let head = format!("host: h\r\nconnection: close\r\ncontent-length: {}", body.len());
        let line = format!("{method} {} HTTP/1.1", String::from_utf8(path).unwrap());
        let mut request = format!("{line}\r\n{head}\r\n\r\n").into_bytes();
        request.extend_from_slice(&body);
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may have answered and closed before all was written.
        stream.write_all(&request).await.unwrap_or_default();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
        let told = || format!("seed {seed}: {line} {}", String::from_utf8_lossy(&body));
        drop(read.await.unwrap_or_else(|_| panic!("no answer: {}", told())));
        let answer = String::from_utf8_lossy(&answer[..answer.len().min(400)]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 "), "{}: {answer}", told());
        assert!(!answer.starts_with("HTTP/1.1 500"), "{}: {answer}", told());
        taken += u32::from(answer.starts_with("HTTP/1.1 2"));
        count += 1;
    }
    assert!(taken > 0 && taken < count, "{taken} of {count} were taken");
    println!("{count} calls, of which {taken} were taken");
}

/// A target that is read prints as a text that reads as the same target.
#[test]
fn changed_names_and_arns_read_as_they_print() {
    let seconds = seconds();
    let seed = uuid::Uuid::new_v4().as_u64_pair().0 | 1;
    let mut random = Random(seed);
    let names = [
        "f",
        "f:live",
        "f:$LATEST",
        "123456789012:f",
        "123456789012:function:f:1",
        "arn:aws:lambda:us-east-1:123456789012:function:my-function:$LATEST",
        "arn:aws-cn:lambda:cn-north-1:123456789012:function:f:3",
        "function:f",
    ];
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut count, mut read) = (0_u64, 0_u64);
    while Instant::now() < end {
        for _ in 0..1000 {
            let name = names[random.below(names.len())];
            let text = random.mutate(name.as_bytes());
            count += 1;
            let Ok(text) = std::str::from_utf8(&text) else { continue };
            let Ok(target) = text.parse::<Target>() else { continue };
            read += 1;
            assert!(target.name.as_str().len() <= 64, "seed {seed}: {text:?}");
            // A target is printed in full, which may be longer than a name may be.
            let readable = target.to_string().len() <= 256;
            if readable && (target.region.is_none() || target.account.is_some()) {
                let again: Target = target.to_string().parse().unwrap();
                assert_eq!(
                    (again.name, again.qualifier),
                    (target.name, target.qualifier),
                    "{text:?}"
                );
            }
        }
    }
    assert!(read > 0 && read < count, "{read} of {count} were read");
    println!("{count} texts, of which {read} are targets");
}
