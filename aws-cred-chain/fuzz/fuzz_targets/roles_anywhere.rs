//! Parses certificates and keys in PEM, and command lines of AWS's helper.
#![no_main]

use aws_cred_chain::testing::World;
use aws_cred_chain::{AnywhereRole, Options, ProvideCredentials, RolesAnywhere, block_on};

const ARN: &str = "arn:aws:rolesanywhere:us-east-1:123456789012:x/y";

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _answer = AnywhereRole::from_helper_command(text);
    let line = format!("aws_signing_helper credential-process {text}");
    let _answer = AnywhereRole::from_helper_command(&line);
    let (certificate, key) = text.split_once('\0').unwrap_or((text, text));
    let world = World::new().file("/certificate", certificate).file("/key", key);
    let role = AnywhereRole::new(ARN, ARN, ARN, "/certificate", "/key");
    let _answer = block_on(RolesAnywhere::new(world.context(), Options::default(), role).provide());
});
