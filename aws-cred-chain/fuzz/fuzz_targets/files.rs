//! Parses the shared files in both dialects, and plans their profiles.
#![no_main]

use aws_cred_chain::files::{Dialect, FileKind, Profiles, SharedFile, differences};
use aws_cred_chain::plan::plan;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let files = [
        SharedFile::new(FileKind::Config, "config", text),
        SharedFile::new(FileKind::Credentials, "credentials", text),
    ];
    for dialect in [Dialect::Sdk, Dialect::Cli] {
        if let Ok(profiles) = Profiles::parse(&files, dialect) {
            for name in profiles.profiles.keys() {
                let _either = plan(&profiles, name);
            }
        }
    }
    let _findings = differences(&files);
});
