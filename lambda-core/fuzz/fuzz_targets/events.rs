//! Feeds sequences of events to the engine; the simulator's checker decides.
#![no_main]

#[path = "../../tests/events/decoder.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err((log, violation)) = decoder::play(bytes) {
        panic!("{violation}\nafter {log:#?}");
    }
});
