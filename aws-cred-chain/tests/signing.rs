//! Signatures compared with botocore's and with the examples of the S3 reference.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, SystemTime};

use aws_cred_chain::Credentials;
use aws_cred_chain::sign::{Chunks, Events, Payload, Signer, Unsigned, public_key_v4a};

fn keys() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
        .with_session_token("tok")
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

const AUGUST_2015: u64 = 1_440_938_160;
const MAY_2013: u64 = 1_369_353_600;

/// The expected signatures come from botocore's `S3SigV4QueryAuth` and `S3SigV4Auth`.
#[test]
fn s3_is_signed_as_botocore_signs_it() {
    let keys = keys();
    let signer = Signer::new(&keys, "us-east-1", "s3", at(AUGUST_2015));
    let request =
        http::Request::get("https://bucket.s3.amazonaws.com/a%20b/c?list-type=2").body(()).unwrap();
    let url = signer.presign(&request, Duration::from_secs(900)).unwrap();
    let signature = url.query().unwrap().split_once("X-Amz-Signature=").unwrap().1;
    assert_eq!(signature, "db3bd803f9bd55bfb938d9aea7d0ceab35c96988bb03da621b84ddb6dcbe46b3");
    let mut request = http::Request::put("https://bucket.s3.amazonaws.com/a%20b/../c//d")
        .header("x-amz-meta-a", " x  y ")
        .header("user-agent", "not signed")
        .body(())
        .unwrap();
    let signed = signer.sign(&mut request, b"hello").unwrap();
    assert_eq!(
        signed.signature,
        "4087f5e5a33a7fce09b3ace3f1fdbc7f75953823ce7f4c692fd258e4b3a15f1f"
    );
    let names = ["authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"];
    assert!(names.iter().all(|name| request.headers().contains_key(*name)), "{request:?}");
    let token = &request.headers()["x-amz-security-token"];
    assert!(token == "tok" && token.is_sensitive(), "{request:?}");
}

#[test]
fn a_port_is_part_of_the_host_and_a_host_header_goes_before() {
    let keys = keys();
    let signer = Signer::new(&keys, "us-east-1", "execute-api", at(AUGUST_2015));
    let canonical = |uri: &str, host: Option<&str>| {
        let mut request = http::Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        signer.sign(&mut request.body(()).unwrap(), b"").unwrap().canonical_request
    };
    assert!(canonical("http://localhost:4566/x", None).contains("\nhost:localhost:4566\n"));
    assert!(canonical("https://example.org:443/x", None).contains("\nhost:example.org\n"));
    assert!(canonical("http://10.0.0.1/", Some("example.org")).contains("\nhost:example.org\n"));
    assert!(signer.sign(&mut http::Request::get("/x").body(()).unwrap(), b"").is_err());
}

#[test]
fn an_unsigned_payload_is_said_so() {
    let keys = keys();
    let mut signer = Signer::new(&keys, "us-east-1", "s3", at(AUGUST_2015));
    signer.payload = Payload::Unsigned;
    let request = Unsigned::new("PUT", "/x", "", &[("host", "h")], b"never looked at");
    let signed = signer.sign_headers(&request);
    assert!(signed.canonical_request.ends_with("\nUNSIGNED-PAYLOAD"));
    let header = ("x-amz-content-sha256".to_owned(), "UNSIGNED-PAYLOAD".to_owned());
    assert!(signed.additions.contains(&header));
}

/// The examples of "Transferring payload in multiple chunks", with and without a trailer.
#[test]
fn chunks_are_signed_as_in_the_reference() {
    let keys = Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let mut signer =
        Signer::new(&keys, "us-east-1", "s3", at(MAY_2013)).with_payload(Payload::Chunks);
    let mut headers = vec![
        ("host", "s3.amazonaws.com"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("content-length", "66824"),
    ];
    let path = "/examplebucket/chunkObject.txt";
    let signed = signer.sign_headers(&Unsigned::new("PUT", path, "", &headers, b""));
    assert_eq!(
        signed.signature,
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    );
    let mut chunks = Chunks::new(&signer, &signed);
    let bodies: [&[u8]; 3] = [&[b'a'; 65_536], &[b'a'; 1024], b""];
    let mut sent = 0;
    for (body, head) in bodies.iter().zip([
        "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
        "400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
        "0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n",
    ]) {
        let chunk = chunks.chunk(body);
        assert!(chunk.starts_with(head.as_bytes()), "{head}");
        sent += chunk.len();
    }
    assert_eq!(u64::try_from(sent).unwrap(), Chunks::encoded_bytes(66_560, 65_536));

    signer.payload = Payload::ChunksAndTrailer;
    headers.retain(|(name, _)| *name != "content-length");
    headers.push(("x-amz-trailer", "x-amz-checksum-crc32c"));
    let signed = signer.sign_headers(&Unsigned::new("PUT", path, "", &headers, b""));
    assert_eq!(
        signed.signature,
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    );
    let mut chunks = Chunks::new(&signer, &signed);
    let _sent = (chunks.chunk(&[b'a'; 65_536]), chunks.chunk(&[b'a'; 1024]));
    let end = String::from_utf8(chunks.trailer(&[("x-amz-checksum-crc32c", "sOO8/Q==")])).unwrap();
    let trailer = "x-amz-trailer-signature:\
                   d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n";
    assert!(end.ends_with(trailer), "{end}");
}

#[test]
fn events_follow_one_another() {
    let keys = keys();
    let signer = Signer::new(&keys, "us-east-1", "transcribe", at(AUGUST_2015))
        .with_payload(Payload::Events);
    let headers = [("host", "transcribestreaming.us-east-1.amazonaws.com")];
    let signed = signer.sign_headers(&Unsigned::new("POST", "/stream", "", &headers, b""));
    let event = |events: &mut Events<'_>, text: &[u8]| events.event(at(AUGUST_2015 + 1), text);
    let mut events = Events::new(signer.clone(), &signed);
    let first = event(&mut events, b"one");
    let length = u32::from_be_bytes(first[..4].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), first.len());
    // The date header has 15 bytes and the signature header 52. The message precedes the last
    // checksum.
    assert_eq!(first[4..8], 67_u32.to_be_bytes());
    assert_eq!(first[first.len() - 7..first.len() - 4], *b"one");
    // The same event has another signature if it follows another event.
    assert_ne!(event(&mut events, b"one"), first);
    assert_eq!(event(&mut Events::new(signer, &signed), b"one"), first);
}

/// Returns the SHA-256 of `bytes` in hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verifies_v4a(keys: &Credentials, text: &str, signature: &str) -> bool {
    let digits = |at: usize| u8::from_str_radix(&signature[at..at + 2], 16).unwrap();
    let signature: Vec<u8> = (0..signature.len()).step_by(2).map(digits).collect();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1;
    ring::signature::UnparsedPublicKey::new(algorithm, public_key_v4a(keys))
        .verify(text.as_bytes(), &signature)
        .is_ok()
}

#[test]
fn s3_is_signed_for_many_regions() {
    let keys = keys();
    let signer = Signer::new(&keys, "", "s3", at(AUGUST_2015)).with_region_set("*");
    let host = "https://mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com";
    let mut put = http::Request::put(format!("{host}/a%20b")).body(()).unwrap();
    let signed = signer.sign(&mut put, b"hello").unwrap();
    assert_eq!(put.headers()["x-amz-region-set"], "*");
    assert_eq!(put.headers()["x-amz-content-sha256"], sha256(b"hello").as_str());
    let authorization = put.headers()["authorization"].to_str().unwrap();
    let scope = "AWS4-ECDSA-P256-SHA256 Credential=AKIDEXAMPLE/20150830/s3/aws4_request, ";
    assert!(authorization.starts_with(scope), "{authorization}");
    assert!(authorization.contains(";x-amz-region-set;x-amz-security-token"), "{authorization}");
    // S3's path is encoded once.
    assert!(signed.canonical_request.starts_with("PUT\n/a%20b\n"));
    assert!(verifies_v4a(&keys, &signed.string_to_sign, &signed.signature));
    assert!(!verifies_v4a(&keys, "another text", &signed.signature));
    let other = Credentials::new("AKIDEXAMPLE", "another secret");
    assert!(!verifies_v4a(&other, &signed.string_to_sign, &signed.signature));

    let get = http::Request::get(format!("{host}/a%20b")).body(()).unwrap();
    let url = signer.presign(&get, Duration::from_secs(60)).unwrap().to_string();
    for part in [
        "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256&",
        "&X-Amz-Region-Set=%2A&",
        "&X-Amz-Security-Token=tok&",
    ] {
        assert!(url.contains(part), "{url}");
    }
    let unsigned = Unsigned::new("GET", "/", "", &[("host", "h")], b"");
    let signed = signer.sign_query(&unsigned, Duration::from_secs(60));
    assert!(signed.canonical_request.ends_with("\nUNSIGNED-PAYLOAD"));
    // Signatures are deterministic.
    assert_eq!(signed.signature, signer.sign_query(&unsigned, Duration::from_secs(60)).signature);
    assert!(!format!("{signer:?} {signed:?}").contains("wJalrXUtnFEMI"));
}

/// Each chunk's signature covers the previous signature without its padding.
#[test]
fn chunks_for_many_regions_have_signatures_of_one_length() {
    let keys = keys();
    let signer = Signer::new(&keys, "", "s3", at(AUGUST_2015))
        .with_region_set("us-*")
        .with_payload(Payload::Chunks);
    let signed = signer.sign_headers(&Unsigned::new("PUT", "/x", "", &[("host", "h")], b""));
    let stands_for = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD";
    assert!(signed.canonical_request.ends_with(stands_for), "{}", signed.canonical_request);
    let mut chunks = Chunks::new(&signer, &signed);
    let (mut previous, mut sent) = (signed.signature.clone(), 0);
    for body in [&b"hello"[..], b"world", b""] {
        let chunk = chunks.chunk(body);
        sent += chunk.len();
        let head =
            String::from_utf8(chunk.split(|byte| *byte == b'\r').next().unwrap().to_vec()).unwrap();
        let signature = head.split_once(";chunk-signature=").unwrap().1;
        assert_eq!(signature.len(), 144);
        let signature = signature.trim_end_matches('*');
        let text = format!(
            "AWS4-ECDSA-P256-SHA256-PAYLOAD\n20150830T123600Z\n20150830/s3/aws4_request\n{previous}\n{}\n{}",
            sha256(b""),
            sha256(body)
        );
        assert!(verifies_v4a(&keys, &text, signature));
        signature.clone_into(&mut previous);
    }
    let length = Chunks::encoded_bytes_with(10, 5, Chunks::SIGNATURE_BYTES_V4A);
    assert_eq!(u64::try_from(sent).unwrap(), length);
}
