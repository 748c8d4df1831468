//! Parses the answers of STS, SSO, container endpoint and metadata service.
#![no_main]

use aws_cred_chain::testing::{Fault, World};
use aws_cred_chain::{Chain, Options, block_on};

const SSO: &str =
    "[default]\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = n\n";
const ROLE: &str = "[default]\nrole_arn = r\nsource_profile = b\n[profile b]\naws_access_key_id = a\naws_secret_access_key = s\n";
/// The file's name is the SHA-1 of `u`.
const TOKEN: &str = "/home/user/.aws/sso/cache/51e69892ab49df85c6230ccc57f8e1d1606caccc.json";

libfuzzer_sys::fuzz_target!(|body: &str| {
    let config = "/home/user/.aws/config";
    let token = r#"{"accessToken": "t", "expiresAt": "2099-01-01T00:00:00Z"}"#;
    for (service, world) in [
        ("sts", World::new().file(config, ROLE)),
        ("sso", World::new().file(config, SSO).file(TOKEN, token)),
        ("container", World::new().env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")),
        ("metadata", World::new()),
    ] {
        world.services().fault(service, Fault::Body(body.to_owned()));
        let _either = block_on(Chain::new(world.context(), Options::default()).resolve());
    }
});
