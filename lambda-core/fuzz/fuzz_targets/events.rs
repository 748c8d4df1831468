//! Sequences of events into the engine, with the simulator's checker as the judge.
#![no_main]

#[path = "../../tests/events/decoder.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err((log, violation)) = decoder::play(bytes) {
        panic!("{violation}\nafter {log:#?}");
    }
});
