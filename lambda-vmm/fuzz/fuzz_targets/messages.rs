#![no_main]
//! Bytes of either end of a control socket: a message that means the same when it is written again,
//! or an error.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lambda_vmm::fuzzing::message(bytes));
