//! Untrusted input never causes a panic, and properties hold for every input.
//!
//! A short form of the fuzz targets in `fuzz/`; `TEST_LONG=1` runs 100,000 cases of each.

use std::time::Duration;

use aws_cred_chain::files::{Dialect, FileKind, Profiles, SharedFile, differences};
use aws_cred_chain::testing::{Fault, World};
use aws_cred_chain::{
    Chain, Credentials, Options, block_on, cli_cache, parse_process_output, plan,
};
use proptest::prelude::*;

fn cases() -> ProptestConfig {
    let long = std::env::var_os("TEST_LONG").is_some();
    ProptestConfig::with_cases(if long { 100_000 } else { 500 })
}

/// Text made of the elements of the file format.
fn config_text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "[",
        "]",
        "profile ",
        "default",
        "sso-session ",
        "services ",
        "a",
        "b",
        " ",
        "\t",
        "\n",
        "\r\n",
        "=",
        ":",
        "#",
        ";",
        "\"",
        "'",
        "\\",
        "role_arn",
        "source_profile",
        "aws_access_key_id",
        "aws_secret_access_key",
        "sso_session",
        "sso_region",
        "credential_source",
        "mfa_serial",
        "\u{e9}",
        "web_identity_token_file",
        "credential_process",
        "\n[profile a]\n",
        "\n[profile b]\n",
        " = a\n",
        "Environment",
        "duration_seconds",
        "99999999999999999999",
    ]);
    prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat())
}

fn read(text: &str) {
    for kind in [FileKind::Config, FileKind::Credentials] {
        let files = [SharedFile::new(kind, "f", text)];
        for dialect in [Dialect::Sdk, Dialect::Cli] {
            if let Ok(profiles) = Profiles::parse(&files, dialect) {
                for name in profiles.profiles.keys() {
                    // A plan ends, and follows at most as many profiles as there are.
                    if let Ok(Some(plan)) = plan::plan(&profiles, name) {
                        assert!(plan.roles.len() <= profiles.profiles.len());
                    }
                }
            }
        }
        for finding in differences(&files) {
            assert!(!finding.to_string().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_file_is_read_or_refused(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn any_file_of_the_formats_pieces_is_read_or_refused(text in config_text()) {
        read(&text);
    }

    #[test]
    fn what_is_written_is_read_again(
        key in "[a-z_]{1,20}", value in "[!-~&&[^#;]][ -~&&[^#;]]{0,40}[!-~&&[^#;]]",
    ) {
        let text = format!("[profile p]\n{key} = {value}\n");
        let file = SharedFile::new(FileKind::Config, "f", text);
        let profiles = Profiles::parse(&[file], Dialect::Sdk).unwrap();
        prop_assert_eq!(profiles.profiles["p"].value(&key), Some(value.as_str()));
    }

    #[test]
    fn any_process_output_and_cache_is_read_or_refused(bytes in any::<Vec<u8>>()) {
        prop_assert!(parse_process_output(&bytes).is_err());
        prop_assert!(cli_cache::parse(&bytes).is_none());
    }

    #[test]
    fn any_answer_of_a_service_ends_in_credentials_or_an_error(
        body in prop_oneof![any::<String>(), "[<>/A-Za-z{}\":,0-9&;# ]{0,200}"],
        service in prop::sample::select(vec!["sts", "container", "metadata"]),
    ) {
        let world = match service {
            "sts" => World::new().file(
                "/home/user/.aws/config",
                "[default]\nrole_arn = r\nsource_profile = b\n\
                 [profile b]\naws_access_key_id = a\naws_secret_access_key = s\n",
            ),
            "container" => World::new().env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"),
            _ => World::new(),
        };
        world.services().fault(service, Fault::Body(body));
        let result = block_on(Chain::new(world.context(), Options::default()).resolve());
        prop_assert!(result.is_err());
    }

    #[test]
    fn a_signature_changes_with_whatever_is_signed(
        path in "/[a-z/.]{0,20}", query in "[a-z=&%]{0,20}", body in any::<Vec<u8>>(), token in "[a-z]{1,9}",
    ) {
        use aws_cred_chain::sign::{Signer, Unsigned};
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let keys = Credentials::new("A", "s").with_session_token(token.as_str());
        let other = Credentials::new("A", "t").with_session_token(token.as_str());
        let headers = [("host", "example.com")];
        let request = Unsigned::new("POST", &path, &query, &headers, &body);
        let sign = |keys: &Credentials, region: &str| {
            Signer::new(keys, region, "sts", time).sign_headers(&request).signature
        };
        prop_assert_eq!(sign(&keys, "r"), sign(&keys, "r"));
        prop_assert_ne!(sign(&keys, "r"), sign(&keys, "q"));
        prop_assert_ne!(sign(&keys, "r"), sign(&other, "r"));
    }
}

#[cfg(feature = "query")]
mod query {
    use super::*;
    use aws_cred_chain::filter::Filter;
    use aws_cred_chain::query::Query;
    use serde_json::json;

    fn expression() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "a",
            "b",
            ".",
            "[",
            "]",
            "(",
            ")",
            "{",
            "}",
            "|",
            "||",
            "&&",
            "&",
            "!",
            "*",
            "@",
            ",",
            ":",
            "`1`",
            "'x'",
            "\"y\"",
            "[0]",
            "[-1]",
            "[::2]",
            "[*]",
            "[]",
            "[?",
            "==",
            "<",
            "length(",
            "sort_by(",
            "sum(",
            "avg(",
            "max_by(",
            "map(",
            "-",
            "1",
            "999999999",
            "`",
            "'",
        ]);
        prop::collection::vec(pieces, 0..25).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn any_query_is_evaluated_or_refused(
            text in prop_oneof![any::<String>(), expression()],
        ) {
            let data = json!({"a": [{"b": 1}, {"b": 2.5}, null, "x"], "b": {"a": [1, 2, 3]}});
            if let Ok(query) = Query::parse(&text) {
                // A value and an error are both right. A panic or an abort is not.
                let _either = query.evaluate(&data);
            }
        }

        #[test]
        fn any_filter_is_evaluated_or_refused(
            text in prop_oneof![any::<String>(), "(Name=|Values=|,|\"|'|\\\\|a|\\*|\\?){0,20}"],
        ) {
            for filter in Filter::parse(&text).unwrap_or_default() {
                let _either = filter.matches(&json!({"A": [{"B": "a"}], "Tags": []}));
            }
        }
    }
}
