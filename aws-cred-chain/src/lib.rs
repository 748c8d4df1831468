//! AWS credential, region and endpoint resolution that explains itself.
#![forbid(unsafe_code)]
