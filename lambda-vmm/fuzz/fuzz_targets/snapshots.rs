#![no_main]
//! State files with a good checksum and any content: the state of a configuration and of devices,
//! or an error. A restored device goes on with any memory.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lambda_vmm::fuzzing::snapshot(bytes));
