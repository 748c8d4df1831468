//! A complete function host.
fn main() {}
