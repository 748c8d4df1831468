//! JWT authorizers: tokens that another library signs, and an issuer of the test whose keys change
//! and whose documents fail.
#![cfg(feature = "jwt")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use lambda_gateway::{
    Answer, Arrival, Call, Definition, Document, Documents, Fetching, Functions, Gateway, Handled,
    Invoking, Request, Unfetched,
};
use serde_json::{Value, json};

const ISSUER: &str = "https://issuer.example/pool";
const DISCOVERY: &str = "https://issuer.example/pool/.well-known/openid-configuration";
const KEYS: &str = "https://issuer.example/keys";
/// The time of most requests, in seconds.
const NOW: u64 = 1_000_000;

/// A function that answers with its event.
#[derive(Debug)]
struct Echo;

impl Functions for Echo {
    fn invoke(&self, call: Call) -> Invoking<'_> {
        let answer = json!({ "statusCode": 200,
            "body": String::from_utf8(call.payload.to_vec()).unwrap() });
        Box::pin(std::future::ready(Ok(Answer::new(answer.to_string(), false))))
    }
}

/// Documents by their addresses, and the addresses that were asked for.
#[derive(Debug, Default)]
struct Table {
    documents: Mutex<BTreeMap<String, Bytes>>,
    asked: Mutex<Vec<String>>,
    /// Whether fetching waits for ever.
    waits: Mutex<bool>,
}

impl Table {
    fn set(&self, url: &str, document: impl Into<Bytes>) {
        drop(self.documents.lock().unwrap().insert(url.to_owned(), document.into()));
    }

    fn set_keys(&self, keys: &[Value]) {
        self.set(KEYS, json!({ "keys": keys }).to_string());
    }

    /// Returns how many documents were fetched since the last call.
    fn fetched(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap()).len()
    }
}

impl Documents for Table {
    fn fetch(&self, document: Document) -> Fetching<'_> {
        self.asked.lock().unwrap().push(document.url.clone());
        let found = self.documents.lock().unwrap().get(&document.url).cloned();
        if *self.waits.lock().unwrap() {
            return Box::pin(async move {
                // Once pending, so that another request can come meanwhile.
                let mut waited = false;
                std::future::poll_fn(|context| {
                    context.waker().wake_by_ref();
                    if std::mem::replace(&mut waited, true) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
                found.ok_or_else(Unfetched::new)
            });
        }
        Box::pin(std::future::ready(found.ok_or_else(Unfetched::new)))
    }
}

/// A key of the issuer.
struct Signer {
    name: &'static str,
    pair: KeyPair,
}

impl Signer {
    fn new(name: &'static str) -> Self {
        Self { name, pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    /// Returns the modulus and the exponent of the key's `RSAPublicKey`, which for 2,048 bits stand
    /// at fixed places.
    fn public(&self) -> ([u8; 256], [u8; 3]) {
        let der = self.pair.public_key().as_ref();
        assert_eq!(der.len(), 270);
        (der[9..265].try_into().unwrap(), der[267..].try_into().unwrap())
    }

    fn jwk(&self) -> Value {
        let (modulus, exponent) = self.public();
        json!({ "kty": "RSA", "use": "sig", "kid": self.name,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent) })
    }

    fn sign(&self, algorithm: &str, claims: &Value) -> String {
        let encoding: &'static dyn RsaEncoding = match algorithm {
            "RS384" => &RSA_PKCS1_SHA384,
            "RS512" => &RSA_PKCS1_SHA512,
            "PS256" => &RSA_PSS_SHA256,
            _ => &RSA_PKCS1_SHA256,
        };
        let signed = unsigned(&json!({ "alg": algorithm, "kid": self.name }), claims);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair.sign(encoding, &random, signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "app", "exp": NOW + 60, "sub": "me", "scope": "read other" })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

/// Returns a gateway with a route of each kind before the issuer's table of documents.
fn gateway(signer: &Signer) -> (Gateway, Arc<Table>) {
    let table = Arc::new(Table::default());
    table.set(DISCOVERY, json!({ "issuer": ISSUER, "jwks_uri": KEYS }).to_string());
    table.set_keys(&[signer.jwk()]);
    let route = |route: &str, payload: &str, scopes: &[&str]| {
        json!({ "route": route, "function": "f", "payload": payload,
        "authorizer": "login", "scopes": scopes })
    };
    let file = json!({ "apis": [{ "kind": "http",
        "stages": [{ "name": "$default", "access_log": "$context.status $context.authorizer.error $context.authorizer.claims.sub" }],
        "authorizers": {
            "login": { "kind": "jwt", "issuer": ISSUER, "audience": ["app", "other"] },
            "query": { "kind": "jwt", "issuer": ISSUER, "audience": ["app"], "identity_sources": ["$request.querystring.token"] },
        },
        "routes": [route("GET /", "2.0", &[]), route("GET /one", "1.0", &[]), route("GET /scoped", "2.0", &["write", "read"]),
            { "route": "GET /query", "function": "f", "authorizer": "query" }] }] });
    let definition = Definition::from_json(&file.to_string()).unwrap();
    let documents = Arc::clone(&table) as Arc<dyn Documents>;
    (Gateway::new(definition, Arc::new(Echo)).with_documents(documents), table)
}

fn handle(gateway: &Gateway, unix_s: u64, request: &Request) -> Handled {
    let arrival = Arrival::new(unix_s * 1000, [192, 0, 2, 9].into(), "an-id");
    let mut future = pin!(gateway.handle(request, &arrival));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10 {
        if let Poll::Ready(handled) = future.as_mut().poll(&mut context) {
            return handled;
        }
    }
    panic!("the future waits");
}

fn bearing(path: &str, token: &str) -> Request {
    Request::new("GET", path).with_header("authorization", &format!("Bearer {token}"))
}

/// Returns the status and the challenge's description.
fn checked(gateway: &Gateway, unix_s: u64, request: &Request) -> (u16, String) {
    let response = handle(gateway, unix_s, request).response;
    let challenge = response.header("www-authenticate").unwrap_or_default();
    let description = challenge.rsplit_once("error_description=").map_or(challenge, |it| it.1);
    (response.status, description.trim_matches('"').to_owned())
}

fn told(status: u16, description: &str) -> (u16, String) {
    (status, description.to_owned())
}

#[test]
fn a_token_passes_and_the_function_sees_its_claims() {
    let signer = Signer::new("one");
    let (gateway, _) = gateway(&signer);
    for algorithm in ["RS256", "RS384", "RS512"] {
        let token = signer.sign(algorithm, &claims());
        let handled = handle(&gateway, NOW, &bearing("/", &token));
        assert_eq!(handled.response.status, 200, "{algorithm}");
        let event: Value = serde_json::from_slice(&handled.response.body).unwrap();
        let seen = json!({ "iss": ISSUER, "aud": "app", "exp": (NOW + 60).to_string(), "sub": "me",
            "scope": "read other" });
        let expected = json!({ "jwt": { "claims": seen, "scopes": null } });
        assert_eq!(event["requestContext"]["authorizer"], expected);
        assert_eq!(handled.log.unwrap().line(0), "200 - me");

        let one = handle(&gateway, NOW, &bearing("/one", &token)).response;
        let event: Value = serde_json::from_slice(&one.body).unwrap();
        let expected = json!({ "claims": seen, "scopes": null });
        assert_eq!(event["requestContext"]["authorizer"], expected);
    }
    let token = signer.sign("RS256", &claims());
    let bare = Request::new("GET", "/").with_header("Authorization", &token);
    assert_eq!(checked(&gateway, NOW, &bare).0, 200, "without `Bearer`");
    let query = Request::new("GET", &format!("/query?token={token}"));
    assert_eq!(checked(&gateway, NOW, &query).0, 200);
    assert_eq!(checked(&gateway, NOW, &bearing("/query", &token)), told(401, "Bearer"));
}

#[test]
fn a_route_asks_for_one_of_its_scopes() {
    let signer = Signer::new("one");
    let (gateway, _) = gateway(&signer);
    let passes = handle(&gateway, NOW, &bearing("/scoped", &signer.sign("RS256", &claims())));
    let event: Value = serde_json::from_slice(&passes.response.body).unwrap();
    assert_eq!(event["requestContext"]["authorizer"]["jwt"]["scopes"], json!(["write", "read"]));
    let token = signer.sign("RS256", &with("scope", "reader writer"));
    let handled = handle(&gateway, NOW, &bearing("/scoped", &token));
    let response = &handled.response;
    assert_eq!((response.status, &response.body[..]), (403, &br#"{"message":"Forbidden"}"#[..]));
    let challenge = "Bearer scope=\"write read\" error=\"insufficient_scope\" error_description=\"the token does not have a required scope\"";
    assert_eq!(response.header("www-authenticate"), Some(challenge));
}

#[test]
fn tokens_that_do_not_pass_are_told_why() {
    let (signer, stranger) = (Signer::new("one"), Signer::new("one"));
    let (gateway, _) = gateway(&signer);
    let none = handle(&gateway, NOW, &Request::new("GET", "/"));
    assert_eq!(
        (none.response.status, &none.response.body[..]),
        (401, &br#"{"message":"Unauthorized"}"#[..])
    );
    assert_eq!(none.response.header("www-authenticate"), Some("Bearer"));
    let token = signer.sign("RS256", &with("aud", "x"));
    let handled = handle(&gateway, NOW, &bearing("/", &token));
    let challenge = "Bearer scope=\"\" error=\"invalid_token\" error_description=\"the token does not have a valid audience\"";
    assert_eq!(handled.response.header("www-authenticate"), Some(challenge));
    let expected = "401 invalid_token: the token does not have a valid audience -";
    assert_eq!(handled.log.unwrap().line(0), expected);

    let good = signer.sign("RS256", &claims());
    let changed = {
        let (head, signature) = good.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let other = URL_SAFE_NO_PAD.encode(with("sub", "admin").to_string());
        format!("{header}.{other}.{signature}")
    };
    // The public key's text as the secret of an HMAC: a checker that goes by the token's word
    // alone would take it.
    let confused = {
        let signed = unsigned(&json!({ "alg": "HS256", "kid": "one" }), &claims());
        let secret = signer.pair.public_key().as_der().unwrap();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_ref());
        let mac = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))
    };
    let unsigned_token =
        |alg: &str| format!("{}.", unsigned(&json!({ "alg": alg, "kid": "one" }), &claims()));
    let unnamed = {
        let signed = unsigned(&json!({ "alg": "RS256" }), &claims());
        format!("{signed}.{}", good.rsplit_once('.').unwrap().1)
    };
    let algorithm = "the token's algorithm is not supported";
    let signature = "the token's signature is invalid";
    for (token, description) in [
        (unsigned_token("none"), algorithm),
        (unsigned_token("NONE"), algorithm),
        (confused, algorithm),
        (signer.sign("PS256", &claims()), algorithm),
        (unsigned_token("RS256"), signature),
        (changed, signature),
        (stranger.sign("RS256", &claims()), signature),
        (signer.sign("RS256", &with("exp", NOW)), "the token has expired"),
        (signer.sign("RS256", &with("nbf", NOW + 1)), "the token is not valid yet"),
        (signer.sign("RS256", &with("iat", NOW + 1)), "the token is not valid yet"),
        (
            signer.sign("RS256", &with("iss", "https://evil.example")),
            "the token does not have a valid issuer",
        ),
        (signer.sign("RS256", &with("iss", Value::Null)), "the token does not have a valid issuer"),
        (unnamed, "the token's key is unknown"),
        (Signer::new("two").sign("RS256", &claims()), "the token's key is unknown"),
        ("a.b.c".to_owned(), "the token is malformed"),
    ] {
        assert_eq!(
            checked(&gateway, NOW, &bearing("/", &token)),
            told(401, description),
            "{token}"
        );
    }
    assert_eq!(checked(&gateway, NOW, &bearing("/", &good)).0, 200);
}

#[test]
fn a_key_that_names_its_algorithm_checks_no_other() {
    let signer = Signer::new("one");
    let (gateway, table) = gateway(&signer);
    let mut key = signer.jwk();
    key["alg"] = "RS512".into();
    table.set_keys(&[key]);
    assert_eq!(checked(&gateway, NOW, &bearing("/", &signer.sign("RS512", &claims()))).0, 200);
    let other = checked(&gateway, NOW, &bearing("/", &signer.sign("RS256", &claims())));
    assert_eq!(other, told(401, "the token's algorithm is not supported"));
}

#[test]
fn keys_are_fetched_once_and_again_for_a_new_name() {
    let (first, second) = (Signer::new("one"), Signer::new("two"));
    let (gateway, table) = gateway(&first);
    let asks = |unix_s: u64, signer: &Signer| {
        let token = signer.sign("RS256", &with("exp", NOW * 2));
        (checked(&gateway, unix_s, &bearing("/", &token)).0, table.fetched())
    };
    assert_eq!(asks(NOW, &first), (200, 2));
    assert_eq!(asks(NOW + 3599, &first), (200, 0));
    // Names that are not there cause one fetch in ten seconds.
    assert_eq!(asks(NOW + 3599, &second), (401, 2));
    assert_eq!(asks(NOW + 3608, &second), (401, 0));
    table.set_keys(&[second.jwk()]);
    assert_eq!(asks(NOW + 3608, &second), (401, 0));
    assert_eq!(asks(NOW + 3609, &second), (200, 2), "rotated");
    assert_eq!(asks(NOW + 3609, &first), (401, 0), "withdrawn");
    // Fetched anew after an hour; if that fails, the kept keys count for another.
    table.documents.lock().unwrap().clear();
    let fetched_at = NOW + 3609;
    assert_eq!(asks(fetched_at + 3600, &second), (200, 1));
    assert_eq!(asks(fetched_at + 3605, &second), (200, 0));
    assert_eq!(asks(fetched_at + 7199, &second), (200, 1));
    assert_eq!(asks(fetched_at + 7200, &second), (401, 0), "not for ever");
}

#[test]
fn tokens_of_others_cause_no_fetch() {
    let signer = Signer::new("one");
    let (gateway, table) = gateway(&signer);
    for token in ["", "a.b.c", &signer.sign("RS256", &with("iss", "https://evil.example"))] {
        assert_eq!(checked(&gateway, NOW, &bearing("/", token)).0, 401);
    }
    assert_eq!(table.fetched(), 0);
}

#[test]
fn documents_that_cannot_be_used_let_nobody_pass() {
    let signer = Signer::new("one");
    let token = signer.sign("RS256", &claims());
    let discovery = "OIDC discovery endpoint communication error";
    let keys = "JWKS communication error";
    let large = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(256 << 10));
    let found =
        |issuer: &str, keys: &str| json!({ "issuer": issuer, "jwks_uri": keys }).to_string();
    for (url, document, expected) in [
        (DISCOVERY, None, discovery),
        (DISCOVERY, Some("{}".to_owned()), discovery),
        (DISCOVERY, Some(found("https://other.example", KEYS)), discovery),
        (DISCOVERY, Some(found(ISSUER, "http://issuer.example/keys")), discovery),
        (DISCOVERY, Some(found(ISSUER, "file:///etc/passwd")), discovery),
        (KEYS, None, keys),
        (KEYS, Some("[]".to_owned()), keys),
        (KEYS, Some(large), keys),
    ] {
        let (gateway, table) = gateway(&signer);
        match document.clone() {
            Some(document) => table.set(url, document),
            None => drop(table.documents.lock().unwrap().remove(url)),
        }
        let answer = checked(&gateway, NOW, &bearing("/", &token));
        assert_eq!(answer, told(401, expected), "{url} {document:.80?}");
        let first = table.fetched();
        assert_eq!(checked(&gateway, NOW + 9, &bearing("/", &token)), told(401, expected));
        assert_eq!((table.fetched(), first > 0), (0, true), "the failure is remembered");
    }
    // A gateway that was given nothing to fetch with.
    let file = json!({ "apis": [{ "kind": "http",
        "authorizers": { "login": { "kind": "jwt", "issuer": ISSUER, "audience": ["app"] } },
        "routes": [{ "route": "GET /", "function": "f", "authorizer": "login" }] }] });
    let definition = Definition::from_json(&file.to_string()).unwrap();
    let gateway = Gateway::new(definition, Arc::new(Echo));
    assert_eq!(checked(&gateway, NOW, &bearing("/", &token)), told(401, discovery));
}

#[test]
fn requests_that_come_together_fetch_once() {
    let signer = Signer::new("one");
    let (gateway, table) = gateway(&signer);
    *table.waits.lock().unwrap() = true;
    let request = bearing("/", &signer.sign("RS256", &claims()));
    let arrival = Arrival::new(NOW * 1000, [192, 0, 2, 9].into(), "an-id");
    let mut context = Context::from_waker(Waker::noop());
    let mut dropped = Box::pin(gateway.handle(&request, &arrival));
    // A server may move it to another thread.
    fn is_send(_: &impl Send) {}
    is_send(&dropped);
    let mut one = pin!(gateway.handle(&request, &arrival));
    let mut two = pin!(gateway.handle(&request, &arrival));
    assert!(dropped.as_mut().poll(&mut context).is_pending());
    assert!(one.as_mut().poll(&mut context).is_pending());
    // A client that leaves while its request fetches does not stop the others.
    drop(dropped);
    let mut statuses = Vec::new();
    let (mut done_one, mut done_two) = (false, false);
    for _ in 0..10 {
        if !done_one && let Poll::Ready(handled) = one.as_mut().poll(&mut context) {
            done_one = true;
            statuses.push(handled.response.status);
        }
        if !done_two && let Poll::Ready(handled) = two.as_mut().poll(&mut context) {
            done_two = true;
            statuses.push(handled.response.status);
        }
    }
    assert_eq!(statuses, [200, 200]);
    assert_eq!(table.fetched(), 3, "one of the client that left, and two");
}

#[test]
fn definitions_in_openapi_and_sam_have_token_authorizers() {
    let integration = json!({ "type": "aws_proxy", "uri": "f", "payloadFormatVersion": "2.0" });
    let openapi = json!({ "openapi": "3.0.1",
        "components": { "securitySchemes": { "login": { "type": "oauth2", "x-amazon-apigateway-authorizer": { "type": "jwt",
            "jwtConfiguration": { "issuer": ISSUER, "audience": ["app"] }, "identitySource": "$request.querystring.t" } } } },
        "paths": { "/": { "get": { "security": [{ "login": ["read"] }], "x-amazon-apigateway-integration": integration } } } });
    let function = |auth: Value| {
        json!({ "Type": "AWS::Serverless::Function", "Properties": { "Events": { "E": { "Type": "HttpApi",
        "Properties": { "Path": "/", "Method": "get", "ApiId": { "Ref": "Api" }, "Auth": auth } } } } })
    };
    let sam = |auth: Value| {
        json!({ "Resources": { "F": function(auth), "Api": { "Type": "AWS::Serverless::HttpApi",
        "Properties": { "Auth": { "DefaultAuthorizer": "login", "Authorizers": { "login": { "AuthorizationScopes": ["read"],
            "JwtConfiguration": { "issuer": ISSUER, "audience": ["app"] }, "IdentitySource": "$request.querystring.t" } } } } } } })
    };
    let read = |document: &Value| Definition::from_json(&document.to_string());
    for (document, scopes) in [
        (openapi.clone(), vec!["read"]),
        (sam(json!({})), vec!["read"]),
        (sam(json!({ "AuthorizationScopes": ["a", "b"] })), vec!["a", "b"]),
        (sam(json!({ "AuthorizationScopes": [] })), vec![]),
    ] {
        let definition = read(&document).unwrap();
        let api = &definition.apis[0];
        let authorizer = &api.jwt_authorizers["login"];
        assert_eq!(
            (authorizer.issuer.as_str(), &authorizer.audience[..]),
            (ISSUER, &["app".to_owned()][..])
        );
        let source = lambda_gateway::IdentitySource::parse("$request.querystring.t").unwrap();
        assert_eq!(authorizer.identity_source, source);
        assert_eq!(api.routes()[0].authorizer.as_deref(), Some("login"));
        assert_eq!(api.routes()[0].scopes, scopes);
    }
    let mut other = openapi;
    other["components"]["securitySchemes"]["login"]["x-amazon-apigateway-authorizer"]["jwtConfiguration"] =
        json!({});
    for document in [
        other,
        sam(json!({ "AuthorizationScopes": "read" })),
        // Scopes that nobody checks must not look as if somebody did.
        sam(json!({ "Authorizer": "NONE", "AuthorizationScopes": ["read"] })),
    ] {
        assert!(read(&document).is_err(), "{document}");
    }
}

#[test]
fn definitions_of_tokens_that_mean_nothing_are_refused() {
    let read = |kind: &str, authorizer: Value, route: Value| {
        let mut route = route;
        route["route"] = "GET /".into();
        route["function"] = "f".into();
        let file = json!({ "apis": [{ "kind": kind, "authorizers": { "login": authorizer }, "routes": [route] }] });
        Definition::from_json(&file.to_string()).map(|_| ()).map_err(|it| it.to_string())
    };
    let good = json!({ "kind": "jwt", "issuer": ISSUER, "audience": ["app"] });
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    assert_eq!(
        read("http", good.clone(), json!({ "authorizer": "login", "scopes": ["a:b/c"] })),
        Ok(())
    );
    for (kind, authorizer, route) in [
        ("rest", good.clone(), json!({})),
        ("http", with("issuer", json!("issuer.example")), json!({})),
        ("http", with("issuer", json!("https://")), json!({})),
        ("http", with("issuer", json!("https://a?b")), json!({})),
        ("http", with("audience", json!([])), json!({})),
        ("http", with("function", json!("f")), json!({})),
        (
            "http",
            with("identity_sources", json!(["$request.header.A", "$request.header.B"])),
            json!({}),
        ),
        ("http", good.clone(), json!({ "scopes": ["a"] })),
        ("http", good.clone(), json!({ "authorizer": "login", "scopes": ["a\" b"] })),
        ("http", json!({ "kind": "request" }), json!({})),
        ("http", json!({ "kind": "request", "function": "f", "issuer": ISSUER }), json!({})),
    ] {
        assert!(read(kind, authorizer.clone(), route.clone()).is_err(), "{authorizer} {route}");
    }
}
