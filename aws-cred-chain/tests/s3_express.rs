//! Sessions of S3 Express One Zone, with a server that checks signatures by signing again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_cred_chain::sign::Signer;
use aws_cred_chain::testing::World;
use aws_cred_chain::{
    BoxFuture, Clock, Context, Credentials, Error, HttpError, Options, S3ExpressSession,
    S3ExpressSessions, SendHttp, SessionMode, Source, block_on, iso_8601,
};
use bytes::Bytes;

const BUCKET: &str = "logs--use1-az4--x-s3";

fn base() -> Credentials {
    Credentials::new("AKIDBASE", "base-secret").with_session_token("base-token")
}

/// A fake S3 that opens sessions of five minutes.
#[derive(Clone, Debug)]
struct S3 {
    clock: aws_cred_chain::testing::VirtualClock,
    seen: Arc<Mutex<Vec<http::Request<Bytes>>>>,
}

impl SendHttp for S3 {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        let authorization = request.headers()["authorization"].to_str().unwrap().to_owned();
        // Signs again with all headers except those that signing adds.
        let mut again = http::Request::get(request.uri().clone()).body(()).unwrap();
        for (name, value) in request.headers() {
            let added = ["authorization", "x-amz-date", "x-amz-security-token"];
            if !added.contains(&name.as_str()) && name != "x-amz-content-sha256" {
                again.headers_mut().insert(name, value.clone());
            }
        }
        let base = base();
        let signer = Signer::new(&base, "us-east-1", "s3express", self.clock.now());
        signer.sign(&mut again, b"").unwrap();
        let mut seen = self.seen.lock().unwrap();
        let number = seen.len() + 1;
        let expires = iso_8601(self.clock.now() + Duration::from_secs(300));
        let (status, body) = match again.headers()["authorization"] == authorization.as_str() {
            true => (
                200,
                format!(
                    "<?xml version=\"1.0\"?><CreateSessionResult><Credentials><SessionToken>session-{number}\
                     </SessionToken><SecretAccessKey>secret</SecretAccessKey><AccessKeyId>ASIAEXPRESS\
                     </AccessKeyId><Expiration>{expires}</Expiration></Credentials></CreateSessionResult>"
                ),
            ),
            false => (403, "<Error><Code>SignatureDoesNotMatch</Code></Error>".to_owned()),
        };
        seen.push(request);
        let mut response = http::Response::new(Bytes::from(body));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        Box::pin(std::future::ready(Ok(response)))
    }
}

fn world() -> (World, S3, Context) {
    let world = World::new();
    let s3 = S3 { clock: world.clock().clone(), seen: Arc::default() };
    let context = world.context().with_http(s3.clone());
    (world, s3, context)
}

#[test]
fn a_session_is_opened_with_the_base_and_signs_with_its_own_token_header() {
    let (_, s3, context) = world();
    let options = Options::default().with_region("us-east-1");
    let provider =
        S3ExpressSession::new(context, options, base(), BUCKET).with_mode(SessionMode::ReadOnly);
    let session = block_on(aws_cred_chain::ProvideCredentials::provide(&provider)).unwrap();
    assert_eq!(session.access_key_id, "ASIAEXPRESS");
    assert_eq!(session.session_token.as_ref().unwrap().expose(), "session-1");
    assert_eq!(session.source, Source::S3Express);
    {
        let seen = s3.seen.lock().unwrap();
        let host = format!("https://{BUCKET}.s3express-use1-az4.us-east-1.amazonaws.com/?session");
        assert_eq!(seen[0].uri().to_string(), host);
        assert_eq!(seen[0].headers()["x-amz-create-session-mode"], "ReadOnly");
        // `CreateSession` itself is signed as any request, with the base's token in the usual
        // header.
        assert_eq!(seen[0].headers()["x-amz-security-token"], "base-token");
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let signer = Signer::new(&session, "us-east-1", "s3express", time);
    let url = format!("https://{BUCKET}.s3express-use1-az4.us-east-1.amazonaws.com/key");
    let mut get = http::Request::get(&url).body(()).unwrap();
    signer.sign(&mut get, b"").unwrap();
    assert_eq!(get.headers()["x-amz-s3session-token"], "session-1");
    assert!(!get.headers().contains_key("x-amz-security-token"));
    let url = signer.presign(&get, Duration::from_secs(60)).unwrap().to_string();
    assert!(url.contains("&X-Amz-S3session-Token=session-1"), "{url}");
}

#[test]
fn each_bucket_has_a_session_that_is_kept_and_renewed() {
    let (world, s3, context) = world();
    let options = Options::default().with_region("us-east-1");
    let sessions = S3ExpressSessions::new(context, options, base());
    let token = |bucket: &str| {
        let session = block_on(sessions.credentials(bucket)).unwrap();
        session.session_token.as_ref().unwrap().expose().to_owned()
    };
    assert_eq!((token(BUCKET), token(BUCKET)), ("session-1".into(), "session-1".into()));
    assert_eq!(token("other--use1-az4--x-s3"), "session-2");
    assert_eq!(token(BUCKET), "session-1");
    world.clock().advance(Duration::from_secs(295));
    assert_eq!(token(BUCKET), "session-3");
    for number in 0..S3ExpressSessions::BUCKETS_MAX {
        token(&format!("b{number}--use1-az4--x-s3"));
    }
    let calls = s3.seen.lock().unwrap().len();
    // The session of the least recently used bucket was evicted.
    token(BUCKET);
    assert_eq!(s3.seen.lock().unwrap().len(), calls + 1);
}

/// The expected endpoints come from botocore's endpoint rules.
#[test]
fn endpoints_of_directory_buckets() {
    let check = |options: Options, expected: &str| {
        let (_, s3, context) = world();
        let provider = S3ExpressSession::new(context, options, base(), BUCKET);
        let _whatever = block_on(aws_cred_chain::ProvideCredentials::provide(&provider));
        let uri = s3.seen.lock().unwrap()[0].uri().to_string();
        assert_eq!(uri, expected);
    };
    let of = |region: &str| Options::default().with_region(region);
    let mut fips = of("us-east-1");
    fips.use_fips = Some(true);
    check(
        fips.clone(),
        &format!("https://{BUCKET}.s3express-fips-use1-az4.us-east-1.amazonaws.com/?session"),
    );
    fips.use_dual_stack = Some(true);
    check(
        fips,
        &format!(
            "https://{BUCKET}.s3express-fips-use1-az4.dualstack.us-east-1.amazonaws.com/?session"
        ),
    );
    check(
        of("cn-north-1"),
        &format!("https://{BUCKET}.s3express-use1-az4.cn-north-1.amazonaws.com.cn/?session"),
    );
    let local = of("us-east-1").with_endpoint_url("http://127.0.0.1:9000");
    check(local, &format!("http://127.0.0.1:9000/{BUCKET}/?session"));
    let named = of("us-east-1").with_endpoint_url("https://s3.example.org");
    check(named, &format!("https://{BUCKET}.s3.example.org/?session"));
}

#[test]
fn names_and_regions_that_cannot_be_meant_are_refused() {
    let (_, s3, context) = world();
    let invalid = |options: Options, bucket: &str| {
        let provider = S3ExpressSession::new(context.clone(), options, base(), bucket);
        let answer = block_on(aws_cred_chain::ProvideCredentials::provide(&provider));
        assert!(matches!(answer, Err(Error::Invalid { .. })), "{answer:?}");
    };
    invalid(Options::default().with_region("us-east-1"), "logs");
    invalid(Options::default().with_region("us-east-1"), "x@evil.example--use1-az4--x-s3");
    invalid(Options::default(), BUCKET);
    assert!(s3.seen.lock().unwrap().is_empty());
}
