//! Random bytes, decoded to events by the fuzz target's decoder.

#[path = "events/decoder.rs"]
mod decoder;

use lambda_core::Event;
use proptest::prelude::*;

fn cases() -> u32 {
    if std::env::var_os("TEST_LONG").is_some() { 100_000 } else { 2_000 }
}

/// Bytes in which useful events are likely: workers with room, functions that fit, invocations that
/// run, engines that are lost.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>;
    let doing = prop_oneof![
        4 => prop::collection::vec(byte(), 1..20),
        2 => (0..3u8, byte()).prop_map(|(isolation, worker)| join(isolation, worker)),
        2 => (0..4u8, 0..6u8, 0..4u8).prop_map(|(function, provisioned, account)| put(function, provisioned, account)),
        4 => (0..4u8).prop_map(|function| vec![5, function]),
        4 => byte().prop_map(|sandbox| vec![11, sandbox % 248]),
        2 => byte().prop_map(|sandbox| vec![18, sandbox % 248, 0, 64]),
        1 => byte().prop_map(|vm| vec![21, vm % 248]),
        1 => (0..4u8, 0..2u8, 0..5u8).prop_map(|(function, owner, reserved)| {
            [put_with(owner, 0, 0, 0, reserved), put_with(function, 0, 0, 160 + 32 * owner, 0)].concat()
        }),
        1 => (128..=255u8, byte(), byte()).prop_map(|(kind, which, how)| vec![26, kind, which, how]),
        1 => (2..5u8).prop_map(|wait| vec![0, wait]),
        1 => byte().prop_map(|unreported| vec![2, 0, unreported, 0, 0, 0, 0, 0, 0]),
        1 => byte().prop_map(|which| vec![2, 1, which]),
    ];
    prop::collection::vec(doing, 0..150).prop_map(|doings| doings.concat())
}

fn join(isolation: u8, worker: u8) -> Vec<u8> {
    vec![25, 4, 2, 2, 0, isolation, worker]
}

fn put(function: u8, provisioned: u8, account: u8) -> Vec<u8> {
    put_with(function, provisioned, account, 0, 0)
}

/// A function whose revision is `revision` modulo 3; the upper bits of `revision` say with which
/// other function it shares.
fn put_with(function: u8, provisioned: u8, account: u8, revision: u8, reserved: u8) -> Vec<u8> {
    vec![31, account, 2, 1, 3, reserved, provisioned, 0, 0, 0, revision, function]
}

fn keep_the_invariants(bytes: &[u8]) -> Result<(), TestCaseError> {
    let played = decoder::play(bytes).map_err(|(log, violation)| {
        let last = log.len().saturating_sub(8);
        TestCaseError::fail(format!("{violation}\nafter {:#?}", &log[last..]))
    })?;
    prop_assert_eq!(Ok(played), decoder::play(bytes));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// No bytes make the engine panic or violate an invariant, and the same bytes give the same
    /// events.
    #[test]
    fn any_bytes_keep_the_invariants(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        keep_the_invariants(&bytes)?;
    }

    #[test]
    fn likely_bytes_keep_the_invariants(bytes in likely()) {
        keep_the_invariants(&bytes)?;
    }
}

/// Bytes can encode that an engine is lost and that the next one gets the workers' reports.
#[test]
fn engines_are_lost_and_followed() {
    let config_policy_seed = vec![0, 0, 1];
    let lost = vec![2, 0, 0, 0];
    let doings =
        [config_policy_seed, join(0, 0), put(0, 0, 0), vec![5, 0], vec![11, 0], lost].concat();
    let log = decoder::play(&doings).expect("no violation");
    let lost_at = log.iter().position(|(_, event)| event.is_none()).expect("lost");
    let reported = log[lost_at..].iter().find_map(|(_, event)| match event {
        Some(Event::WorkerReported { sandboxes, .. }) => Some(sandboxes.len()),
        _ => None,
    });
    assert_eq!(reported, Some(1));
}
