//! Parses recordings of exchanges, and records bodies.
#![no_main]

use aws_cred_chain::testing::{Fault, Recorder, Replay, World};
use aws_cred_chain::{Chain, Options, block_on};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let world = World::new();
    if let Ok(replay) = Replay::parse(text) {
        let chain = Chain::new(world.context().with_http(replay), Options::default());
        let _answer = block_on(chain.resolve());
    }
    world.services().fault("metadata", Fault::Body(text.to_owned()));
    let recorder = Recorder::new(world.services().clone());
    let context = world.context().with_http(recorder.clone());
    let now = context.clock().now();
    let _answer = block_on(Chain::new(context, Options::default()).resolve());
    assert!(Replay::parse(&recorder.recording(now)).is_ok());
});
