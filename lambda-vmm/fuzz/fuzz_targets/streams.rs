#![no_main]
//! Packets of a guest to the streams of its vsock device, with acts of the host between: the device
//! keeps and answers a bounded amount.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lambda_vmm::fuzzing::streams(bytes));
