//! Region and endpoint: the precedence of settings, and the standard endpoints.

use aws_cred_chain::testing::World;
use aws_cred_chain::{Endpoint, Error, Options, Origin, block_on, endpoint, region};

const CONFIG: &str = "/home/user/.aws/config";

fn region_of(world: &World, options: &Options) -> Option<(String, String)> {
    let found = block_on(region(&world.context(), options, false)).expect("the settings are right");
    found.map(|(name, origin)| (name, origin.to_string()))
}

fn endpoint_of(world: &World, options: &Options, service: &str) -> Result<Endpoint, Error> {
    block_on(endpoint(&world.context(), options, service))
}

#[test]
fn the_region_by_option_variables_and_profile() {
    let check = |world: &World, options: &Options, name: &str, origin: &str| {
        assert_eq!(region_of(world, options), Some((name.to_owned(), origin.to_owned())));
    };
    let none = Options::default();
    let world = World::new();
    assert_eq!(region_of(&world, &none), None);
    let world = world.file(CONFIG, "[default]\nregion = of-profile\n[profile x]\nregion = of-x\n");
    check(&world, &none, "of-profile", "/home/user/.aws/config:2");
    check(&world, &Options::default().with_profile("x"), "of-x", "/home/user/.aws/config:4");
    let world = world.env("AWS_DEFAULT_REGION", "of-default");
    check(&world, &none, "of-default", "AWS_DEFAULT_REGION");
    let world = world.env("AWS_REGION", "of-variable");
    check(&world, &none, "of-variable", "AWS_REGION");
    check(&world, &Options::default().with_region("of-option"), "of-option", "option region");
}

/// A region becomes part of the host name to which credentials are sent.
#[test]
fn a_region_that_would_lead_elsewhere_is_refused() {
    for bad in ["evil.example/", "a.b", "x@evil", "a b", "-a", "a-", "\u{e9}", "a#"] {
        let world = World::new().env("AWS_REGION", bad);
        let found = block_on(region(&world.context(), &Options::default(), false));
        assert!(matches!(found, Err(Error::Invalid { .. })), "{bad}: {found:?}");
        assert!(endpoint_of(&world, &Options::default(), "sts").is_err(), "{bad}");
    }
}

#[test]
fn the_standard_endpoints_of_each_partition() {
    let check = |service: &str, region: &str, fips: bool, dual: bool, expected: &str| {
        let mut options = Options::default().with_region(region);
        options.use_fips = Some(fips);
        options.use_dual_stack = Some(dual);
        let found = endpoint_of(&World::new(), &options, service).expect("the settings are right");
        assert_eq!(found.url, expected);
        assert_eq!((found.signing_region.as_str(), found.origin), (region, Origin::Default));
    };
    check("sts", "eu-west-1", false, false, "https://sts.eu-west-1.amazonaws.com");
    check("sts", "us-east-1", true, true, "https://sts-fips.us-east-1.api.aws");
    check("sts", "us-gov-west-1", true, false, "https://sts.us-gov-west-1.amazonaws.com");
    check("sts", "cn-north-1", false, false, "https://sts.cn-north-1.amazonaws.com.cn");
    check("sso", "us-east-2", false, false, "https://portal.sso.us-east-2.amazonaws.com");
    check("sso_oidc", "us-east-2", false, false, "https://oidc.us-east-2.amazonaws.com");
    check("sts", "us-isob-east-1", false, false, "https://sts.us-isob-east-1.sc2s.sgov.gov");
    let found =
        endpoint_of(&World::new(), &Options::default(), "sts").expect("no region is needed");
    assert_eq!(
        (found.url.as_str(), found.signing_region.as_str()),
        ("https://sts.amazonaws.com", "us-east-1")
    );
}

#[test]
fn wrong_settings_are_named_with_their_place() {
    for (config, place) in [
        ("[default]\nuse_fips_endpoint = maybe\n", "config:2"),
        ("[default]\nservices = nowhere\n", "config:2"),
        ("[default]\n\nendpoint_url = not a url\n", "config:3"),
        ("[default]\nendpoint_url = ftp://x\n", "config:2"),
    ] {
        let error = endpoint_of(&World::new().file(CONFIG, config), &Options::default(), "sts");
        let text = error.expect_err("the setting is wrong").to_string();
        assert!(text.contains(place), "{text}");
    }
}
