//! Custom sources, region and endpoint chains, bearer tokens, session tags.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_cred_chain::testing::World;
use aws_cred_chain::{
    AssumeRole, BoxFuture, Cache, Chain, CognitoIdentity, Credentials, EndpointChain, Error,
    FederationToken, HttpError, Options, Origin, ProvideCredentials, RegionChain, Role, SamlRole,
    SendHttp, Source, block_on, cli_cache, first_try, from_fn,
};
use bytes::Bytes;

#[test]
fn the_next_provider_is_asked_where_one_is_not_configured_and_only_there() {
    let world = World::new();
    let chain = Chain::new(world.context(), Options::default());
    let absent =
        || from_fn("vault", || async { Err(Error::not_configured("vault", "no address")) });
    let broken = from_fn("broken", || async {
        Err(Error::Failed { operation: "asking".to_owned(), hint: None, cause: None })
    });
    let given = Credentials::new("GIVEN", "s");
    let found =
        block_on(first_try(absent()).or_else(chain.clone()).or_else(given.clone()).provide());
    assert_eq!(found.unwrap().access_key_id, "GIVEN");
    let stopped = block_on(first_try(absent()).or_else(broken).or_else(given).provide());
    assert!(matches!(stopped, Err(Error::Failed { .. })));
    // If no provider is configured, the error has the attempts of all.
    let nothing = block_on(first_try(absent()).or_else(chain).provide()).unwrap_err();
    let text = nothing.to_string();
    assert!(text.contains("vault: no address") && text.contains("AWS_ACCESS_KEY_ID"), "{text}");
}

#[test]
fn a_closure_is_a_source_with_a_name_and_may_be_cached() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let source = from_fn("mine", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(Credentials::new("A", "s")) }
    });
    let cache = Cache::new(World::new().context(), source);
    for _ in 0..3 {
        let credentials = block_on(cache.credentials()).unwrap();
        assert_eq!(credentials.source, Source::Custom("mine"));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(Source::Custom("mine").to_string(), "mine");
}

#[test]
fn regions_and_endpoints_are_objects_and_methods_of_the_chain() {
    let config = "[default]\nregion = eu-west-1\n[profile x]\nregion = us-gov-west-1\nuse_fips_endpoint = true\n";
    let world = World::new().file("/home/user/.aws/config", config);
    let chain = Chain::new(world.context(), Options::default());
    let (region, origin) = block_on(chain.region()).unwrap().unwrap();
    assert_eq!(region, "eu-west-1");
    assert!(matches!(origin, Origin::File { line: 2, .. }), "{origin:?}");
    let url = block_on(chain.endpoint("dynamodb")).unwrap().url;
    assert_eq!(url, "https://dynamodb.eu-west-1.amazonaws.com");
    let named = Options::default().with_profile("x");
    let endpoints = EndpointChain::new(world.context(), named);
    let url = block_on(endpoints.resolve("sso_oidc")).unwrap().url;
    assert_eq!(url, "https://oidc.us-gov-west-1.amazonaws.com");
    let nothing = World::new();
    let regions = RegionChain::new(nothing.context(), Options::default()).with_metadata();
    assert_eq!(block_on(regions.resolve()).unwrap(), None);
}

#[test]
fn the_files_may_be_named_by_the_program() {
    let keys = "[default]\naws_access_key_id = A\naws_secret_access_key = s\n";
    let world =
        World::new().file("/etc/keys", keys).file("/etc/config", "[default]\nregion = r-1\n");
    let options =
        Options::default().with_credentials_file("/etc/keys").with_config_file("/etc/config");
    let chain = Chain::new(world.context(), options);
    for _ in 0..3 {
        assert_eq!(block_on(chain.resolve()).unwrap().credentials.access_key_id, "A");
    }
    assert_eq!(block_on(chain.region()).unwrap().unwrap().0, "r-1");
}

#[test]
fn a_bearer_token_by_variable_goes_before_the_session() {
    let world = World::new().env("AWS_BEARER_TOKEN_BEDROCK", " key ");
    let chain = Chain::new(world.context(), Options::default());
    let token = block_on(chain.token_for("bedrock")).unwrap();
    assert_eq!(token.token.expose(), "key");
    assert!(matches!(block_on(chain.token_for("s3")), Err(Error::NotConfigured { .. })));
}

/// Keeps the body of the last request.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<std::sync::Mutex<String>>);

impl SendHttp for Heard {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        *self.0.lock().unwrap() = String::from_utf8_lossy(request.body()).into_owned();
        Box::pin(async { Err(HttpError::Unavailable) })
    }
}

#[test]
fn sessions_have_tags_policies_and_an_identity() {
    let role = Role::new("arn:aws:iam::1:role/R")
        .with_session_name("s")
        .with_tag("team", "a b", true)
        .with_tag("cost", "1", false)
        .with_policy_arn("arn:aws:iam::aws:policy/ReadOnlyAccess")
        .with_source_identity("me");
    let heard = Heard::default();
    let context = World::new().context().with_http(heard.clone());
    let base = Credentials::new("A", "s");
    let provider = AssumeRole::new(context, Options::default(), base, role.clone());
    block_on(provider.provide()).unwrap_err();
    let sent = heard.0.lock().unwrap().clone();
    for part in [
        "&Tags.member.1.Key=team&Tags.member.1.Value=a%20b",
        "&Tags.member.2.Key=cost&Tags.member.2.Value=1",
        "&TransitiveTagKeys.member.1=team",
        "&PolicyArns.member.1.arn=arn%3Aaws%3Aiam%3A%3Aaws%3Apolicy%2FReadOnlyAccess",
        "&SourceIdentity=me",
    ] {
        assert!(sent.contains(part), "{sent}");
    }
    // The tags are part of the cache key of a session.
    let plain = Role::new("arn:aws:iam::1:role/R").with_session_name("s");
    assert_ne!(cli_cache::key(&role), cli_cache::key(&plain));
}

/// Answers by the operation of a request, and records the requests.
#[derive(Clone, Debug, Default)]
struct Scripted(Arc<std::sync::Mutex<Vec<(String, String)>>>);

impl SendHttp for Scripted {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        let target =
            request.headers().get("x-amz-target").map(|it| it.to_str().unwrap().to_owned());
        let operation = target.unwrap_or_else(|| {
            body.split('&').next().unwrap().trim_start_matches("Action=").to_owned()
        });
        let session = "<A><R><Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
                       <SessionToken>t</SessionToken><Expiration>2026-01-01T01:00:00Z</Expiration></Credentials></R></A>";
        let answer = match operation.rsplit('.').next().unwrap() {
            "GetId" => r#"{"IdentityId": "us-east-1:me"}"#,
            "GetCredentialsForIdentity" => {
                r#"{"IdentityId": "us-east-1:me", "Credentials": {"AccessKeyId": "ASIA", "SecretKey": "s",
                    "SessionToken": "t", "Expiration": 1767229200.5}}"#
            }
            _ => session,
        };
        let signed = request.headers().contains_key("authorization");
        self.0.lock().unwrap().push((format!("{operation} {signed} {}", request.uri()), body));
        Box::pin(async move { Ok(http::Response::new(Bytes::from(answer))) })
    }
}

#[test]
fn cognito_saml_and_federated_users_have_sessions() {
    let scripted = Scripted::default();
    let context = World::new().context().with_http(scripted.clone());
    let options = || Options::default().with_region("us-east-1");
    let sent = || scripted.0.lock().unwrap().drain(..).collect::<Vec<_>>();
    let cognito = CognitoIdentity::new(context.clone(), options(), "us-east-1:pool")
        .with_login("accounts.google.com", "id-token");
    let found = block_on(cognito.provide()).unwrap();
    assert_eq!((found.access_key_id.as_str(), found.source), ("ASIA", Source::Cognito));
    assert!(found.expires_at.is_some());
    let calls = sent();
    let place = "https://cognito-identity.us-east-1.amazonaws.com/";
    assert_eq!(calls[0].0, format!("AWSCognitoIdentityService.GetId false {place}"));
    assert!(calls[1].1.contains("us-east-1:me") && calls[1].1.contains("id-token"));
    assert!(!format!("{cognito:?}").contains("id-token"));

    let role =
        Role::new("arn:aws:iam::1:role/R").with_duration(std::time::Duration::from_secs(900));
    let saml = SamlRole::new(
        context.clone(),
        options(),
        role,
        "arn:aws:iam::1:saml-provider/P",
        "PHNhbWw+",
    );
    assert_eq!(block_on(saml.provide()).unwrap().source, Source::Saml);
    let calls = sent();
    assert_eq!(calls[0].0, "AssumeRoleWithSAML false https://sts.us-east-1.amazonaws.com/");
    assert!(calls[0].1.contains("&SAMLAssertion=PHNhbWw%2B&DurationSeconds=900"), "{}", calls[0].1);
    assert!(!format!("{saml:?}").contains("PHNhbWw"));

    let base = Credentials::new("A", "s");
    let limits = Role::default().with_tag("team", "blue", false).with_policy("{}");
    let user = FederationToken::new(context, options(), base, "bob").with_limits(limits);
    assert_eq!(block_on(user.provide()).unwrap().source, Source::Federation);
    let calls = sent();
    assert_eq!(calls[0].0, "GetFederationToken true https://sts.us-east-1.amazonaws.com/");
    assert!(
        calls[0].1.contains("&Name=bob&Policy=%7B%7D&Tags.member.1.Key=team"),
        "{}",
        calls[0].1
    );
}
