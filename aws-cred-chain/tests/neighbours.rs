//! Tables of small cases: rules of the shared files, their paths, role graphs, hosts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use aws_cred_chain::files::{Dialect, FileKind, Location, Profiles, SharedFile};
use aws_cred_chain::memory::MapEnv;
use aws_cred_chain::plan::{Base, plan};
use aws_cred_chain::sign::{Signer, Unsigned};
use aws_cred_chain::testing::World;
use aws_cred_chain::{
    BoxFuture, Chain, Credentials, Error, HttpError, Options, SendHttp, block_on,
    container_endpoint, endpoint, metadata_endpoint,
};
use bytes::Bytes;

const CONFIG: &str = "/home/user/.aws/config";

/// Returns the settings of all profiles, one `[profile] key=value` per line, or the error.
fn said(config: &str, credentials: &str) -> Result<String, String> {
    let files = [
        SharedFile::new(FileKind::Config, "config", config),
        SharedFile::new(FileKind::Credentials, "credentials", credentials),
    ];
    let parsed = Profiles::parse(&files, Dialect::Sdk).map_err(|error| error.to_string())?;
    let groups =
        [("", &parsed.profiles), ("sso:", &parsed.sso_sessions), ("services:", &parsed.services)];
    let mut lines = Vec::new();
    for (kind, sections) in groups {
        for (name, section) in sections {
            if section.properties.is_empty() {
                lines.push(format!("[{kind}{name}]"));
            }
            for (key, property) in &section.properties {
                lines.push(format!("[{kind}{name}] {key}={}", property.value));
            }
        }
    }
    Ok(lines.join(" | "))
}

#[test]
fn the_config_file_line_by_line() {
    for (text, expected) in [
        ("[ profile foo ]\nk=v", "[foo] k=v"),
        ("[\tprofile\t \tfoo\t]\nk = v", "[foo] k=v"),
        ("[profile foo]# x ] y\nk=v", "[foo] k=v"),
        ("[profile foo] ; x\nk=v", "[foo] k=v"),
        ("[foo]\nk=v\n[profile bar]\n", "[bar]"),
        ("[profilefoo]\nk=v\n", ""),
        ("[profile]\nk=v\n[profile ]\nk=v\n[]\n", ""),
        ("[profile a b]\nk=v\n[profile x!]\nk=v\n", ""),
        ("[plugins]\ncli=x\n[profile a]\n", "[a]"),
        ("[default]\nk=bare\nother=1\n[profile default]\nk=prefixed\n", "[default] k=prefixed"),
        (
            "[profile default]\nk=a\n[default]\nk=b\n[profile default]\nj=c\n",
            "[default] j=c | [default] k=a",
        ),
        ("[profile a]\nk=1\n[profile b]\n[profile a]\nk=2\nj=3\n", "[a] j=3 | [a] k=2 | [b]"),
        ("[profile a]\nKey=1\nkEY=2\n", "[a] key=2"),
        ("[profile a]\nk =\nj=\t \n", "[a] j= | [a] k="),
        ("[profile a]\nk = a=b=c\n", "[a] k=a=b=c"),
        ("[profile a]\nk = [x] ]\n", "[a] k=[x] ]"),
        ("[profile a]\nk = a#b;c\nj = a # b\ni = a\t; b\n", "[a] i=a | [a] j=a | [a] k=a#b;c"),
        ("# k=v before any section\n; x\n\n \t\n[profile a]\n", "[a]"),
        ("[profile a]\nk = 1\n # 2\n ; 3\n", "[a] k=1\n# 2\n; 3"),
        ("[profile a]\nk = 1\n\n\t 2 \n", "[a] k=1\n2"),
        ("[profile a]\ns3 =\n  x = 1\n\n  y =\n  z z = 2\n", "[a] s3=\nx = 1\ny =\nz z = 2"),
        ("[profile a]\nb ad = 1\ngo-od = 2\n", "[a] go-od=2"),
        ("[profile a]\r\nk = v\r\n  w\r\n", "[a] k=v\nw"),
        ("\u{feff}[default]\nk=v\n", "[default] k=v"),
        ("[profile a]\nk = \u{1F511} \u{e9}\n", "[a] k=\u{1F511} \u{e9}"),
        (
            "[sso-session s]\nsso_region = r\n[services s]\nx =\n  endpoint_url = u\n",
            "[sso:s] sso_region=r | [services:s] x=\nendpoint_url = u",
        ),
        ("[sso-session]\nk=v\n[sso-sessions s]\nk=v\n[Profile a]\nk=v\n", ""),
    ] {
        assert_eq!(said(text, "").as_deref(), Ok(expected), "{text:?}");
    }
}

#[test]
fn the_credentials_file_and_both_together() {
    for (config, credentials, expected) in [
        ("", "[foo]\nk=v\n[profile bar]\nk=v\n[sso-session s]\nk=v\n", "[foo] k=v"),
        ("[profile a]\nk=1\nj=1\n", "[a]\nk=2\n", "[a] j=1 | [a] k=2"),
        (
            "[profile default]\nk=1\n[default]\nj=1\n",
            "[default]\nl=2\n",
            "[default] k=1 | [default] l=2",
        ),
        ("[default]\nk=1\n", "[profile default]\nk=2\n", "[default] k=1"),
    ] {
        assert_eq!(
            said(config, credentials).as_deref(),
            Ok(expected),
            "{config:?} {credentials:?}"
        );
    }
}

#[test]
fn lines_that_cannot_be_read() {
    for (text, place) in [
        ("k = v\n[profile a]\n", "config:1"),
        ("\n k = v\n", "config:2"),
        ("[profile a]\n  k = v\n", "config:2"),
        ("[profile a]\nk = v\n[profile b]\n more\n", "config:4"),
        ("[profile a]\nk\n", "config:2"),
        ("[profile a]\n= v\n", "config:2"),
        ("[profile a\nk = v\n", "config:1"),
        ("[profile a] x\n", "config:1"),
        ("[profile a # ]\n", "config:1"),
        ("[profile a]\ns3 =\n x\n", "config:3"),
        ("[profile a]\ns3 =\n a = 1\n = 2\n", "config:4"),
    ] {
        let error = said(text, "").unwrap_err();
        assert!(error.contains(place), "{text:?}: {error}");
    }
}

#[test]
fn the_places_of_the_files() {
    let check = |windows: bool, variables: &[(&str, &str)], config: Option<&str>| {
        let location = Location::find(&MapEnv::new(variables.iter().copied()), windows);
        assert_eq!(location.config, config.map(PathBuf::from), "{variables:?}");
    };
    check(false, &[("HOME", "/h"), ("USERPROFILE", "/u")], Some("/h/.aws/config"));
    check(false, &[("HOME", "/h/")], Some("/h/.aws/config"));
    check(false, &[("USERPROFILE", "/u"), ("HOMEDRIVE", "C:"), ("HOMEPATH", "\\x")], None);
    check(true, &[("USERPROFILE", "C:\\u"), ("HOMEDRIVE", "D:")], Some("C:\\u\\.aws\\config"));
    check(true, &[("HOMEDRIVE", "D:"), ("HOMEPATH", "\\x")], Some("D:\\x\\.aws\\config"));
    check(true, &[("HOMEDRIVE", "D:")], None);
    let home = ("HOME", "/h");
    check(false, &[home, ("AWS_CONFIG_FILE", "~/c")], Some("/h/c"));
    check(false, &[home, ("AWS_CONFIG_FILE", "~other/c")], Some("~other/c"));
    check(false, &[home, ("AWS_CONFIG_FILE", "a/~/c")], Some("a/~/c"));
    check(false, &[home, ("AWS_CONFIG_FILE", "~\\c")], Some("~\\c"));
    check(false, &[home, ("AWS_CONFIG_FILE", " ")], Some("/h/.aws/config"));
    check(false, &[("AWS_CONFIG_FILE", "~/c")], Some("~/c"));
    let home = ("HOME", "C:\\h");
    check(true, &[home, ("AWS_CONFIG_FILE", "~\\a\\c")], Some("C:\\h\\a\\c"));
    check(true, &[home, ("AWS_CONFIG_FILE", "~/a/c")], Some("C:\\h\\a\\c"));
    check(true, &[home, ("AWS_CONFIG_FILE", "D:/a/c")], Some("D:/a/c"));
}

/// Returns the plan of profile `a`: the base's kind and profile, then the roles; or the error.
fn meant(config: &str) -> String {
    let config = config.replace("KEYS", "aws_access_key_id=i\naws_secret_access_key=s");
    let file = SharedFile::new(FileKind::Config, "config", config);
    let profiles = Profiles::parse(&[file], Dialect::Sdk).unwrap();
    match plan(&profiles, "a") {
        Ok(None) => "nothing".to_owned(),
        Err(error) => format!("error: {error}"),
        Ok(Some(plan)) => {
            let base = match &plan.base {
                Base::WebIdentity { role, .. } => format!("web identity {}", role.role_arn),
                other => other.source().to_string(),
            };
            let roles: Vec<&str> = plan.roles.iter().map(|role| role.role_arn.as_str()).collect();
            format!("{base} of {}: {}", plan.base_profile, roles.join(" "))
        }
    }
}

#[test]
fn graphs_of_roles() {
    let keys = aws_cred_chain::Source::ConfigFile;
    let process = aws_cred_chain::Source::Process;
    for (config, expected) in [
        ("[profile a]\nrole_arn=r\nsource_profile=a\nKEYS\n", format!("{keys} of a: r")),
        (
            "[profile a]\nKEYS\nrole_arn=r\nsource_profile=b\n[profile b]\nKEYS\n",
            format!("{keys} of b: r"),
        ),
        (
            "[profile a]\nrole_arn=1\nsource_profile=b\n[profile b]\nrole_arn=2\nsource_profile=c\n\
             [profile c]\nrole_arn=3\nsource_profile=d\n[profile d]\nKEYS\n",
            format!("{keys} of d: 3 2 1"),
        ),
        (
            "[profile a]\nrole_arn=1\nsource_profile=b\n[profile b]\nrole_arn=2\nweb_identity_token_file=t\n",
            "web identity 2 of b: 1".to_owned(),
        ),
        (
            "[profile a]\nrole_arn=1\nsource_profile=b\n[profile b]\ncredential_process=p\n",
            format!("{process} of b: 1"),
        ),
        ("[profile b]\nKEYS\n", "nothing".to_owned()),
        ("[profile a]\nregion=x\n", "nothing".to_owned()),
    ] {
        assert_eq!(meant(config), expected, "{config:?}");
    }
    for (config, problem) in [
        ("[profile a]\nrole_arn=r\nsource_profile=a\n", "did not contain credential information"),
        (
            "[profile a]\nrole_arn=r\nsource_profile=b\n[profile b]\nrole_arn=r\nsource_profile=a\n",
            "infinite loop",
        ),
        (
            "[profile a]\nrole_arn=r\nsource_profile=b\n[profile b]\nregion=x\n",
            "did not contain credential",
        ),
        ("[profile a]\nrole_arn=r\nsource_profile=b\n", "could not find source profile b"),
        (
            "[profile a]\nrole_arn=r\nsource_profile=b\ncredential_source=Environment\n",
            "exclude each other",
        ),
        ("[profile a]\nrole_arn=r\n", "needs source_profile"),
        ("[profile a]\nrole_arn=r\ncredential_source=Moon\n", "credential_source `Moon`"),
        ("[profile a]\nweb_identity_token_file=t\n", "`role_arn` was missing"),
        ("[profile a]\naws_access_key_id=i\n", "missing aws_secret_access_key"),
        ("[profile a]\naws_secret_access_key=s\n", "missing aws_access_key_id"),
    ] {
        let found = meant(config);
        assert!(found.starts_with("error: ") && found.contains(problem), "{config:?}: {found}");
    }
}

#[test]
fn hosts_that_container_credentials_come_from() {
    const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
    const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let good = [
        "http://169.254.170.2/x",
        "http://169.254.170.23:80/x",
        "http://[fd00:ec2::23]/x?y=z",
        "http://[FD00:EC2:0::23]/x",
        "http://127.3.2.1:9/x",
        "http://[::1]:9/x",
        "http://LOCALHOST/x",
        "https://example.com/x",
        "https://10.0.0.1:8443/x",
    ];
    for url in good {
        let world = World::new().env(FULL, url);
        let found = container_endpoint(&world.context()).unwrap().unwrap();
        assert_eq!(found.0, url);
        let world = world.env(RELATIVE, "/first");
        let found = container_endpoint(&world.context()).unwrap().unwrap();
        assert_eq!(found.0, "http://169.254.170.2/first");
    }
    let bad = [
        "http://169.254.170.3/x",
        "http://169.254.169.254/x",
        "http://[fd00:ec2::24]/x",
        "http://10.0.0.1/x",
        "http://example.com/x",
        "http://localhost.example.com/x",
        "http://127.0.0.1@example.com/x",
        "http://127.0.0.1.example.com/x",
        "ftp://127.0.0.1/x",
        "/x",
        "http://",
        "http://a b/",
    ];
    for url in bad {
        let found = container_endpoint(&World::new().env(FULL, url).context());
        assert!(matches!(found, Err(Error::Invalid { .. })), "{url}: {found:?}");
    }
    for path in ["x", "@example.com/x", ".example.com/", "/a b"] {
        let found = container_endpoint(&World::new().env(RELATIVE, path).context());
        assert!(matches!(found, Err(Error::Invalid { .. })), "{path}: {found:?}");
    }
}

#[test]
fn where_the_metadata_service_is() {
    const MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
    const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    let (v4, v6) = ("http://169.254.169.254", "http://[fd00:ec2::254]");
    for (mode, expected) in [("ipv4", Some(v4)), ("IPV6", Some(v6)), (" ", Some(v4)), ("6", None)] {
        let found = block_on(metadata_endpoint(
            &World::new().env(MODE, mode).context(),
            &Options::default(),
        ));
        assert_eq!(found.as_deref().ok(), expected, "{mode}: {found:?}");
    }
    let file = "[default]\nec2_metadata_service_endpoint = http://of-file/\n\
                ec2_metadata_service_endpoint_mode = 7\n[profile six]\n\
                ec2_metadata_service_endpoint_mode = ipv6\n";
    let world = World::new().file(CONFIG, file);
    let find = |world: &World, options: &Options| {
        block_on(metadata_endpoint(&world.context(), options)).unwrap()
    };
    let mut options = Options::default();
    assert_eq!(find(&world, &options), "http://of-file");
    assert_eq!(find(&world, &Options::default().with_profile("six")), v6);
    let world = world.env(ENDPOINT, "http://[::1]:8/");
    assert_eq!(find(&world, &options), "http://[::1]:8");
    options.imds_endpoint = Some("http://of-option".to_owned());
    assert_eq!(find(&world, &options), "http://of-option");
    for bad in ["host:80", "/path", "ftp://x", "http://"] {
        let world = World::new().env(ENDPOINT, bad);
        let found = block_on(metadata_endpoint(&world.context(), &Options::default()));
        assert!(matches!(found, Err(Error::Invalid { .. })), "{bad}: {found:?}");
    }
}

#[test]
fn endpoints_of_services_by_their_names() {
    let config = "[default]\nregion = r\nservices = s\nendpoint_url = http://profile\n[services s]\n\
                  elastic_beanstalk =\n  ENDPOINT_URL = http://section\ns3 =\n  endpoint_url =\n";
    let find = |world: &World, service: &str| {
        block_on(endpoint(&world.context(), &Options::default(), service)).unwrap().url
    };
    let world = World::new().file(CONFIG, config);
    for name in ["Elastic Beanstalk", "elastic-beanstalk", "ELASTIC_BEANSTALK"] {
        assert_eq!(find(&world, name), "http://section");
    }
    assert_eq!(find(&world, "s3"), "http://profile", "an empty value is none");
    let world = world.env("AWS_ENDPOINT_URL", "http://all/");
    assert_eq!(find(&world, "elastic_beanstalk"), "http://all");
    let world = world.env("AWS_ENDPOINT_URL_ELASTIC_BEANSTALK", "http://one");
    assert_eq!(find(&world, "Elastic Beanstalk"), "http://one");
    assert_eq!(find(&world, "s3"), "http://all");
    for ignored in ["true", "TRUE"] {
        let world = World::new()
            .file(CONFIG, config)
            .env("AWS_ENDPOINT_URL", "http://all")
            .env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", ignored);
        assert_eq!(find(&world, "s3"), "https://s3.r.amazonaws.com");
    }
    let ignoring =
        config.replace("region = r", "region = r\nignore_configured_endpoint_urls = True");
    let world = World::new().file(CONFIG, ignoring).env("AWS_ENDPOINT_URL", "http://all");
    assert_eq!(find(&world, "s3"), "https://s3.r.amazonaws.com");
    let world = world.env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "False");
    assert_eq!(find(&world, "s3"), "http://all", "the variable goes before the profile");
}

#[test]
fn the_session_token_goes_before_its_older_name() {
    let keys = World::new().env("AWS_ACCESS_KEY_ID", "i").env("AWS_SECRET_ACCESS_KEY", "s");
    let token = |world: &World| {
        let found = block_on(Chain::new(world.context(), Options::default()).resolve()).unwrap();
        found.credentials.session_token.map(|token| token.expose().to_owned())
    };
    assert_eq!(token(&keys), None);
    let older = keys.env("AWS_SECURITY_TOKEN", "older");
    assert_eq!(token(&older).as_deref(), Some("older"));
    let blank = older.env("AWS_SESSION_TOKEN", " ");
    assert_eq!(token(&blank).as_deref(), Some("older"));
    let both = blank.env("AWS_SESSION_TOKEN", "newer");
    assert_eq!(token(&both).as_deref(), Some("newer"));
}

/// Returns the lines of a canonical request from the path to the names of the signed headers.
fn canonical(
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    set: &dyn Fn(&mut Signer<'_>),
) -> Vec<String> {
    let credentials = Credentials::new("id", "secret").with_session_token("tok en/+=");
    let mut signer = Signer::new(&credentials, "r", "s", std::time::SystemTime::UNIX_EPOCH);
    set(&mut signer);
    let signed = signer.sign_headers(&Unsigned::new("GET", path, query, headers, b""));
    let lines = signed.canonical_request.lines().map(str::to_owned);
    lines.skip(1).collect()
}

#[test]
fn paths_as_they_are_signed() {
    for (path, plain, normal, twice) in [
        ("", "/", "/", "/"),
        ("/", "/", "/", "/"),
        ("//", "//", "/", "/"),
        ("/./", "/./", "/", "/"),
        ("/a/..", "/a/..", "/", "/"),
        ("/../../a", "/../../a", "/a", "/a"),
        ("/a/./b//c/", "/a/./b//c/", "/a/b/c/", "/a/b/c/"),
        ("/a/b/.", "/a/b/.", "/a/b/", "/a/b/"),
        ("/a b", "/a%20b", "/a%20b", "/a%20b"),
        ("/a%20b", "/a%20b", "/a%20b", "/a%2520b"),
        ("/a%2fb", "/a%2Fb", "/a%2Fb", "/a%252fb"),
        ("/\u{1F511}", "/%F0%9F%94%91", "/%F0%9F%94%91", "/%F0%9F%94%91"),
        ("/a%zz%", "/a%25zz%25", "/a%25zz%25", "/a%25zz%25"),
        ("/-_.~09azAZ", "/-_.~09azAZ", "/-_.~09azAZ", "/-_.~09azAZ"),
        ("/a+b:c@d", "/a%2Bb%3Ac%40d", "/a%2Bb%3Ac%40d", "/a%2Bb%3Ac%40d"),
    ] {
        for (normalize, double, expected) in
            [(false, false, plain), (true, false, normal), (true, true, twice)]
        {
            let lines = canonical(path, "", &[], &|signer| {
                signer.normalize_path = normalize;
                signer.double_encode = double;
            });
            assert_eq!(lines[0], expected, "{path} {normalize} {double}");
        }
    }
}

#[test]
fn queries_and_headers_as_they_are_signed() {
    for (query, expected) in [
        ("", ""),
        ("b=1&a=2", "a=2&b=1"),
        ("a=2&a=10&a=1&A=0", "A=0&a=1&a=10&a=2"),
        ("a", "a="),
        ("a=&b", "a=&b="),
        ("=x", "=x"),
        ("a=b=c", "a=b%3Dc"),
        ("a=x%20y&a=x%2fy", "a=x%20y&a=x%2Fy"),
        ("a b=c d", "a%20b=c%20d"),
        ("\u{e9}=\u{e9}", "%C3%A9=%C3%A9"),
        ("a-=1&a=2&a~=3", "a=2&a-=1&a~=3"),
        ("-._~=-._~", "-._~=-._~"),
    ] {
        assert_eq!(canonical("/", query, &[], &|_| {})[1], expected, "{query}");
    }
    let headers = [
        ("Host", "h"),
        ("X-B", "  two   words\t here "),
        ("x-a", "z"),
        ("X-A", "y"),
        ("x-A", "  z,  y "),
    ];
    let lines = canonical("/", "", &headers, &|signer| signer.omit_session_token = true);
    let expected = [
        "host:h",
        "x-a:z,y,z, y",
        "x-amz-date:19700101T000000Z",
        "x-b:two words here",
        "",
        "host;x-a;x-amz-date;x-b",
    ];
    assert_eq!(lines[2..8], expected);
    let lines = canonical("/", "", &[("host", "h")], &|signer| signer.sign_body = true);
    assert!(lines.contains(&"x-amz-security-token:tok en/+=".to_owned()), "{lines:?}");
    assert!(
        lines.contains(&"host;x-amz-content-sha256;x-amz-date;x-amz-security-token".to_owned())
    );
}

#[test]
fn a_token_in_a_presigned_query_is_signed_or_added_after() {
    let credentials = Credentials::new("id", "secret").with_session_token("to/k=en");
    let headers = [("host", "h")];
    let request = Unsigned::new("GET", "/", "z=1", &headers, b"");
    let mut signer = Signer::new(&credentials, "r", "s", std::time::SystemTime::UNIX_EPOCH);
    for omit in [false, true] {
        signer.omit_session_token = omit;
        let signed = signer.sign_query(&request, std::time::Duration::from_secs(60));
        let token = "X-Amz-Security-Token=to%2Fk%3Den";
        assert_eq!(signed.canonical_request.contains(token), !omit);
        let query = signed.canonical_request.lines().nth(2).unwrap();
        assert!(query.starts_with(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=id%2F19700101%2Fr%2Fs%2Faws4_request&\
             X-Amz-Date=19700101T000000Z&X-Amz-Expires=60&X-Amz-Sec"
        ) || omit);
        assert!(query.ends_with("X-Amz-SignedHeaders=host&z=1"), "{query}");
        let added: Vec<&str> = signed.additions.iter().map(|(name, _)| name.as_str()).collect();
        assert!(added.contains(&"X-Amz-Security-Token") && added.contains(&"X-Amz-Signature"));
    }
}

/// A metadata service with this list of roles.
#[derive(Debug)]
struct Metadata(&'static str);

impl SendHttp for Metadata {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, HttpError>> {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let body = match request.uri().path() {
            "/latest/api/token" => " token \n",
            ROLES => self.0,
            path if path == format!("{ROLES}my.role+1") => {
                r#"{"Code": "Success", "AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t",
                    "Expiration": "1970-01-01T00:00:00Z"}"#
            }
            _ => return Box::pin(std::future::ready(Ok(status(404)))),
        };
        let mut response = status(200);
        *response.body_mut() = Bytes::from_static(body.as_bytes());
        Box::pin(std::future::ready(Ok(response)))
    }
}

fn status(status: u16) -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::new());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}

#[test]
fn roles_as_the_metadata_service_lists_them() {
    let resolve = |list| {
        let context = World::new().context().with_http(Metadata(list));
        block_on(Chain::new(context, Options::default()).resolve()).map_err(|found| found.error)
    };
    for list in ["my.role+1", "my.role+1\n", "\r\n  my.role+1 \r\nother\n"] {
        let found = resolve(list).unwrap();
        assert_eq!(found.credentials.access_key_id, "A", "{list:?}");
        assert!(found.trace.to_string().contains("beyond their expiry"), "{}", found.trace);
    }
    for none in ["", "\n \n", "unknown"] {
        let error = resolve(none).unwrap_err();
        assert!(matches!(error, Error::NotConfigured { .. }), "{none:?}: {error:?}");
    }
    for bad in ["../../x", "a b", "a?b", "<html>"] {
        let error = resolve(bad).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{bad:?}: {error:?}");
    }
}
