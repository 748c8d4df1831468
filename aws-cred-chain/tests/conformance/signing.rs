//! Cases of Signature Version 4 and 4a.

use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_cred_chain::Credentials;
use aws_cred_chain::sign::{Signature, Signer, Unsigned};
use serde_json::{Value, json};

use crate::{part, report};

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn request(text: &str) -> Request {
    let text = text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let first = lines.next().unwrap();
    let (method, rest) = first.split_once(' ').unwrap();
    let target = rest.rsplit_once(" HTTP/").map_or(rest, |(target, _)| target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        if line.starts_with([' ', '\t']) {
            let value = &mut headers.last_mut().unwrap().1;
            value.push(' ');
            value.push_str(line);
        } else {
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: body.to_owned(),
    }
}

/// Parses `20150830T123600Z` or `2015-08-30T12:36:00Z`.
pub(crate) fn time(text: &str) -> SystemTime {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let number = |from: usize, to: usize| digits[from..to].parse::<i64>().unwrap();
    let (y, m, d) = (number(0, 4), number(4, 6), number(6, 8));
    let days = (1970..y).map(|y| 365 + i64::from(leap(y))).sum::<i64>()
        + (1..m)
            .map(|m| {
                [31, 28 + i64::from(leap(y)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
                    [usize::try_from(m - 1).unwrap()]
            })
            .sum::<i64>()
        + d
        - 1;
    let seconds = days * 86_400 + number(8, 10) * 3600 + number(10, 12) * 60 + number(12, 14);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap())
}

fn leap(y: i64) -> bool {
    y % 4 == 0 && (y % 100 != 0 || y % 400 == 0)
}

fn context(read: &dyn Fn(&str) -> Option<String>) -> Value {
    // A case without a context is about the encoding of paths. It is signed with the suite's keys,
    // at the time and in the scope of its files.
    match read("context.json") {
        Some(text) => serde_json::from_str(&text).unwrap(),
        None => {
            let signed = read("header-signed-request.txt").unwrap();
            let after = |mark: &str| {
                let at = signed.to_ascii_lowercase().find(mark).unwrap() + mark.len();
                signed[at..].split([',', '\n']).next().unwrap().trim().to_owned()
            };
            let scope = after("credential=");
            let scope: Vec<&str> = scope.split('/').collect();
            let canonical = read("header-canonical-request.txt").unwrap();
            let date = canonical.lines().find_map(|line| line.strip_prefix("x-amz-date:"));
            json!({ "region": scope[2], "service": scope[3], "timestamp": date.unwrap() })
        }
    }
}

fn run(folder: &Path, v4a: bool, failures: &mut Vec<String>) {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    let request = request(&read("request.txt").unwrap());
    let context = context(&read);
    let text = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_owned();
    let keys = &context["credentials"];
    let mut credentials = Credentials::new(
        text(&keys["access_key_id"], "AKIDEXAMPLE"),
        text(&keys["secret_access_key"], "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    );
    if let Some(token) = keys["token"].as_str() {
        credentials = credentials.with_session_token(token);
    }
    let (region, service) = (text(&context["region"], ""), text(&context["service"], ""));
    let mut signer =
        Signer::new(&credentials, &region, &service, time(context["timestamp"].as_str().unwrap()));
    signer.normalize_path = context["normalize"].as_bool().unwrap_or(true);
    signer.sign_body = context["sign_body"].as_bool().unwrap_or(false);
    signer.omit_session_token = context["omit_session_token"].as_bool().unwrap_or(false);
    signer.double_encode = !folder.join("context.json").exists();
    if v4a {
        signer.region_set = Some(&region);
    }
    let headers: Vec<(&str, &str)> = request
        .headers
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("x-amz-date"))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let unsigned = Unsigned::new(
        &request.method,
        &request.path,
        &request.query,
        &headers,
        request.body.as_bytes(),
    );
    let compare = match v4a {
        true => compare_v4a,
        false => compare,
    };
    failures.extend(compare(name, &read, "header", &signer.sign_headers(&unsigned)));
    let query_files = ["canonical-request", "string-to-sign", "signature", "signed-request"];
    if query_files.iter().any(|file| folder.join(format!("query-{file}.txt")).exists()) {
        let expires = context["expiration_in_seconds"].as_u64().unwrap_or(3600);
        let signed = signer.sign_query(&unsigned, Duration::from_secs(expires));
        failures.extend(compare(name, &read, "query", &signed));
    }
}

/// Returns the first difference between a signature and the case's files.
fn compare(
    name: &str,
    read: &dyn Fn(&str) -> Option<String>,
    kind: &str,
    signed: &Signature,
) -> Option<String> {
    let files = [
        ("canonical-request", &signed.canonical_request),
        ("string-to-sign", &signed.string_to_sign),
        ("signature", &signed.signature),
    ];
    for (file, ours) in files {
        if let Some(theirs) = read(&format!("{kind}-{file}.txt"))
            && theirs.replace("\r\n", "\n").trim_end() != ours.trim_end()
        {
            return Some(format!("{name} {kind}-{file}:\n{ours}\n  not\n{theirs}"));
        }
    }
    let theirs = read(&format!("{kind}-signed-request.txt"))?;
    // One case has the signed request of another case, with another key and day.
    let comparable = theirs.contains("Credential=AKIDEXAMPLE");
    (comparable && !theirs.contains(&signed.signature))
        .then(|| format!("{name}: another signature"))
}

/// Returns the first difference of a signature of Version 4a from the case's files. ECDSA
/// signatures differ between implementations, so both are verified with the case's public key.
fn compare_v4a(
    name: &str,
    read: &dyn Fn(&str) -> Option<String>,
    kind: &str,
    signed: &Signature,
) -> Option<String> {
    let unsigned = |file: &str| match file.ends_with("-signature.txt") || file.contains("signed") {
        true => None,
        false => read(file),
    };
    let point: Value = serde_json::from_str(&read("public-key.json").unwrap()).unwrap();
    let coordinate = |name: &str| bytes(point[name].as_str().unwrap());
    let point = [vec![4], coordinate("X"), coordinate("Y")].concat();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1;
    let key = ring::signature::UnparsedPublicKey::new(algorithm, point);
    let verifies =
        |text: &str, signature: &str| key.verify(text.as_bytes(), &bytes(signature)).is_ok();
    let theirs = read(&format!("{kind}-string-to-sign.txt")).unwrap();
    let of_case = read(&format!("{kind}-signature.txt")).unwrap();
    if !verifies(theirs.trim_end(), of_case.trim()) {
        return Some(format!("{name} {kind}: the case's own signature does not verify"));
    }
    if !verifies(&signed.string_to_sign, &signed.signature) {
        return Some(format!("{name} {kind}: our signature does not verify"));
    }
    compare(name, &unsigned, kind, signed)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// The suite is in the package `aws-sigv4`, which the benches use as a peer, in the registry's
/// folder.
#[test]
fn the_suite_of_sigv4a() {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let subfolders = |folder: std::path::PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path())
    };
    let registries = home.into_iter().flat_map(|home| subfolders(home.join("registry/src")));
    let mut suites: Vec<_> = registries
        .flat_map(subfolders)
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("aws-sigv4-"))
        .map(|path| path.join("aws-signing-test-suite/v4a"))
        .filter(|path| path.is_dir())
        .collect();
    suites.sort();
    let Some(folder) = suites.pop() else {
        test_support::left_out("SigV4a suite", "no package aws-sigv4 with it");
        return;
    };
    let (mut ran, mut failures) = (0, Vec::new());
    let mut folders: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    for folder in folders.iter().filter(|folder| folder.join("request.txt").exists()) {
        ran += 1;
        run(folder, true, &mut failures);
    }
    report("SigV4a", ran, &failures);
}

#[test]
fn conformance_sigv4() {
    let Some(folder) = part("sigv4/v4") else {
        return;
    };
    let (mut ran, mut failures) = (0, Vec::new());
    let mut folders: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    for folder in folders.iter().filter(|folder| folder.join("request.txt").exists()) {
        ran += 1;
        run(folder, false, &mut failures);
    }
    report("SigV4", ran, &failures);
}
