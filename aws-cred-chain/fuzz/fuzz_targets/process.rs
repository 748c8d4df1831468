//! Parses the output of `credential_process`, and cache files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _either = aws_cred_chain::parse_process_output(bytes);
    let _either = aws_cred_chain::cli_cache::parse(bytes);
});
