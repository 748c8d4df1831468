#![no_main]
//! Steps of a hostile driver against the transport and the queues of each device: no call panics or
//! stays, and after a reset the device serves a good driver.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lambda_vmm::fuzzing::device(bytes));
