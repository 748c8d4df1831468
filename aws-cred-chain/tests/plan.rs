//! In random worlds, the plan names exactly the sources that the chain then asks.

use aws_cred_chain::testing::{Role, World};
use aws_cred_chain::{Chain, CommandOutput, Credentials, Options, Source, Trace, block_on};
use proptest::prelude::*;

const ROLE: &str = "arn:aws:iam::123456789012:role/R";
const OTHER: &str = "arn:aws:iam::123456789012:role/O";

/// Lines that a random profile may have.
const LINES: &[&str] = &[
    "aws_access_key_id = A\naws_secret_access_key = S\n",
    "aws_access_key_id = A\n",
    "aws_secret_access_key = S\n",
    "aws_session_token = t\n",
    "role_arn = arn:aws:iam::123456789012:role/R\n",
    "source_profile = a\n",
    "source_profile = b\n",
    "source_profile = gone\n",
    "credential_source = Environment\n",
    "credential_source = EcsContainer\n",
    "credential_source = Ec2InstanceMetadata\n",
    "credential_process = give\n",
    "credential_process = gone\n",
    "login_session = x\n",
    "web_identity_token_file = /jwt\n",
    "mfa_serial = m\n",
    "sso_session = s\nsso_account_id = 123456789012\nsso_role_name = R\n",
    "sso_session = gone\n",
    "sso_account_id = 123456789012\n",
    "region = eu-west-1\n",
    "  continued\n",
    "garbage\n",
];

const VARIABLES: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "A"),
    ("AWS_SECRET_ACCESS_KEY", "S"),
    ("AWS_PROFILE", "a"),
    ("AWS_PROFILE", "gone"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "/jwt"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "/gone"),
    ("AWS_ROLE_ARN", OTHER),
    ("AWS_ROLE_SESSION_NAME", "n"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.org/"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z"),
];

const SOURCES: &[Source] = &[
    Source::Explicit,
    Source::Environment,
    Source::WebIdentity,
    Source::SharedFile,
    Source::ConfigFile,
    Source::AssumeRole,
    Source::Sso,
    Source::Login,
    Source::Process,
    Source::Container,
    Source::InstanceMetadata,
];

fn profile(header: &'static str) -> impl Strategy<Value = String> {
    let lines = prop::collection::btree_set(prop::sample::select(LINES), 0..4);
    lines.prop_map(move |lines| {
        let lines: Vec<&str> = lines.into_iter().collect();
        format!("{header}\n{}", lines.concat())
    })
}

fn sources(trace: &Trace) -> Vec<Source> {
    trace.steps().iter().filter_map(|step| step.source).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if test_support::long() { 20_000 } else { 2_000 }))]

    #[test]
    fn the_plan_names_what_the_chain_asks(
        sections in (profile("[default]"), profile("[profile a]"), profile("[profile b]")),
        credentials in prop::option::weighted(0.4, (profile("[default]"), profile("[a]"))),
        variables in prop::collection::vec(prop::sample::select(VARIABLES), 0..4),
        without in prop::collection::vec(prop::sample::select(SOURCES), 0..3),
        named in prop::option::weighted(0.3, prop::sample::select(vec!["a", "b", "gone"])),
        explicit in prop::bool::weighted(0.1),
        metadata in prop::option::weighted(0.3, prop::option::of(Just("role"))),
        mfa_session in any::<bool>(),
    ) {
        let session = "[sso-session s]\nsso_region = us-east-1\nsso_start_url = https://x/start\n";
        let (default, a, b) = sections;
        let mut world = World::new()
            .file("/home/user/.aws/config", [default.as_str(), &a, &b, session].concat())
            .file("/jwt", "a.b.c")
            .user("A", "S", "123456789012");
        if let Some((default, a)) = credentials {
            world = world.file("/home/user/.aws/credentials", default + &a);
        }
        for (name, value) in variables {
            world = world.env(name, value);
        }
        for arn in [ROLE, OTHER] {
            world.services().add_role(Role::new(arn).with_web_identity("a.b.c"));
        }
        let output = r#"{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "S"}"#;
        world.commands().put("give", CommandOutput::new(0, output));
        world.services().set_container(None);
        if let Some(role) = metadata {
            world.services().set_metadata(role, 2, 1, true);
        }
        let mut options = Options::default();
        options.without = without;
        options.profile = named.map(str::to_owned);
        options.credentials = explicit.then(|| Credentials::new("A", "S"));
        options.mfa_session = mfa_session;
        let chain = Chain::new(world.context(), options);
        let plan = block_on(chain.plan()).unwrap();
        let planned: Vec<Source> = plan.asked().collect();
        // Repeated: later resolutions may use the kept reading of the files.
        for _ in 0..3 {
            match block_on(chain.resolve()) {
                Ok(resolved) => prop_assert_eq!(
                    &sources(&resolved.trace), &planned, "\n{}\n{}", resolved.trace, plan.steps
                ),
                Err(unresolved) => {
                    let asked = sources(&unresolved.trace);
                    prop_assert!(
                        planned.starts_with(&asked),
                        "{:?} not {:?}\n{}\n{}", asked, planned, unresolved.trace, plan.steps
                    );
                    // If nothing is configured, the chain asked every planned source.
                    if matches!(unresolved.error, aws_cred_chain::Error::NotConfigured { .. }) {
                        prop_assert_eq!(&asked, &planned);
                    }
                }
            }
        }
    }
}
