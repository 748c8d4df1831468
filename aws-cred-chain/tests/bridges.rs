//! The bridges pass on the chain's credentials and its errors by kind, and the clients of other
//! crates sign with them.

use aws_cred_chain::bridge::Bridge;
use aws_cred_chain::testing::World;
use aws_cred_chain::{Chain, Credentials, Options, block_on};

fn found() -> Bridge {
    let expires = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    Bridge::new(
        Credentials::new("AKID", "secret")
            .with_session_token("token")
            .with_account_id("123456789012")
            .with_expires_at(expires),
    )
}

fn nothing() -> Bridge {
    Bridge::new(Chain::new(World::new().context(), Options::default()))
}

fn broken() -> Bridge {
    let world = World::new().env("AWS_ACCESS_KEY_ID", "AKID");
    Bridge::new(Chain::new(world.context(), Options::default()))
}

#[cfg(feature = "aws-credential-types")]
#[test]
fn the_sdk_takes_the_chain() {
    use aws_credential_types::provider::ProvideCredentials as _;
    use aws_credential_types::provider::error::CredentialsError;
    let theirs = block_on(found().provide_credentials()).unwrap();
    assert_eq!(theirs.access_key_id(), "AKID");
    assert_eq!(theirs.secret_access_key(), "secret");
    assert_eq!(theirs.session_token(), Some("token"));
    assert_eq!(theirs.account_id().map(|id| id.as_str()), Some("123456789012"));
    assert!(theirs.expiry().is_some());
    let error = block_on(nothing().provide_credentials()).unwrap_err();
    assert!(matches!(error, CredentialsError::CredentialsNotLoaded(_)), "{error:?}");
    let error = block_on(broken().provide_credentials()).unwrap_err();
    assert!(matches!(error, CredentialsError::InvalidConfiguration(_)), "{error:?}");
}

#[cfg(feature = "object_store")]
#[test]
fn object_store_takes_the_chain() {
    use object_store::CredentialProvider as _;
    let theirs = block_on(found().get_credential()).unwrap();
    assert_eq!((theirs.key_id.as_str(), theirs.secret_key.as_str()), ("AKID", "secret"));
    assert_eq!(theirs.token.as_deref(), Some("token"));
    assert!(block_on(nothing().get_credential()).is_err());
    assert!(block_on(broken().get_credential()).is_err());
    let builder = object_store::aws::AmazonS3Builder::new().with_bucket_name("b").with_region("r");
    builder.with_credentials(std::sync::Arc::new(found())).build().unwrap();
}

#[cfg(feature = "reqsign")]
#[test]
fn reqsign_takes_the_chain() {
    use reqsign_core::{Context, ErrorKind, ProvideCredential as _};
    let context = Context::new();
    let theirs = block_on(found().provide_credential(&context)).unwrap().unwrap();
    assert_eq!(
        (theirs.access_key_id.as_str(), theirs.secret_access_key.as_str()),
        ("AKID", "secret")
    );
    assert_eq!(theirs.session_token.as_deref(), Some("token"));
    assert!(theirs.expires_in.is_some());
    assert!(block_on(nothing().provide_credential(&context)).unwrap().is_none());
    let error = block_on(broken().provide_credential(&context)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
}

/// Returns the parts of an `authorization` header, and this crate's signature of the same request.
#[cfg(any(feature = "object_store", feature = "reqsign"))]
fn signed_again(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(String, String)],
    service: &str,
) -> (String, String) {
    use aws_cred_chain::sign::{Signer, Unsigned};
    let header = |name: &str| {
        let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    let authorization = header("authorization");
    let part = |name: &str| {
        let rest = authorization.split_once(name).map(|(_, rest)| rest).unwrap_or_default();
        rest.split([',', ' ']).next().unwrap_or_default().to_owned()
    };
    assert!(part("Credential=").starts_with("AKID/"), "{headers:?}");
    let date = header("x-amz-date");
    let digits: Vec<u64> = [0..4, 4..6, 6..8, 9..11, 11..13, 13..15]
        .map(|range| date[range].parse().expect("a number of the date"))
        .to_vec();
    // Days since the epoch in the Gregorian calendar.
    let (year, month) =
        if digits[1] > 2 { (digits[0], digits[1]) } else { (digits[0] - 1, digits[1] + 12) };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * (month - 3) + 2) / 5 + digits[2]
            - 719_469;
    let seconds = days * 86_400 + digits[3] * 3600 + digits[4] * 60 + digits[5];
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let names = part("SignedHeaders=");
    let own = ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];
    let signed: Vec<(&str, &str)> = names
        .split(';')
        .filter(|name| !own.contains(name))
        .map(|name| (name, header(name)))
        .collect();
    let keys = Credentials::new("AKID", "secret").with_session_token("token");
    let scope = part("Credential=");
    let mut signer = Signer::new(&keys, scope.split('/').nth(2).unwrap_or_default(), service, time);
    signer.sign_body = names.contains("x-amz-content-sha256");
    signer.double_encode = service != "s3";
    let again = signer.sign_headers(&Unsigned::new(method, path, query, &signed, b""));
    (part("Signature="), again.signature)
}

/// The S3 client of `object_store` signs with the chain's keys, over loopback.
#[cfg(feature = "object_store")]
#[tokio::test]
async fn the_client_of_object_store_signs_with_the_chain() {
    use object_store::ObjectStoreExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\netag: \"x\"\r\nlast-modified: Thu, 01 Jan 2026 \
                      00:00:00 GMT\r\n\r\nok";
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let store = object_store::aws::AmazonS3Builder::new()
        .with_bucket_name("b")
        .with_region("eu-west-1")
        .with_endpoint(url)
        .with_allow_http(true)
        .with_credentials(std::sync::Arc::new(found()))
        .build()
        .unwrap();
    let object = store.get(&object_store::path::Path::from("folder/object")).await.unwrap();
    assert_eq!(object.bytes().await.unwrap().as_ref(), b"ok");
    let head = server.await.unwrap();
    let mut lines = head.lines();
    let first: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(headers.contains(&("x-amz-security-token".to_owned(), "token".to_owned())), "{head}");
    let (theirs, ours) = signed_again(first[0], first[1], "", &headers, "s3");
    assert_eq!(theirs, ours, "{head}");
}

/// The signer of `reqsign` signs with the chain's keys.
#[cfg(feature = "reqsign")]
#[tokio::test]
async fn the_signer_of_reqsign_signs_with_the_chain() {
    let builder = reqsign_aws_v4::RequestSigner::new("sts", "eu-west-1");
    let signer = reqsign_core::Signer::new(reqsign_core::Context::new(), found(), builder);
    // The SHA-256 of the empty body. Without the header, reqsign leaves the body unsigned.
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let request = http::Request::get("https://sts.example.com/a/b?x=1&a=2")
        .header("x-amz-content-sha256", nothing)
        .body(())
        .unwrap();
    let (mut parts, ()) = request.into_parts();
    signer.sign(&mut parts, None).await.unwrap();
    let mut headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    if !headers.iter().any(|(name, _)| name == "host") {
        headers.push(("host".to_owned(), "sts.example.com".to_owned()));
    }
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let (theirs, ours) = signed_again("GET", path, query, &headers, "sts");
    assert_eq!(theirs, ours, "{headers:?}");
}

/// The AWS SDK's clients take credentials through this type, and cache them until their expiry.
#[cfg(feature = "aws-credential-types")]
#[tokio::test]
async fn the_sdk_shares_the_chain_among_its_clients() {
    use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
    let shared = SharedCredentialsProvider::new(found());
    let (one, other) = (shared.clone(), shared);
    let keys = one.provide_credentials().await.unwrap();
    assert_eq!(keys.access_key_id(), "AKID");
    assert_eq!(other.provide_credentials().await.unwrap().expiry(), keys.expiry());
}
