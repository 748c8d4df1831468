//! Faults and doubtful settings of the shared files. Pure.

use std::fmt;

use super::{Dialect, Profiles, SharedFile};
use crate::error::Error;
use crate::trace::Origin;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// The setting cannot work.
    Error,
    /// The setting probably does not do what was meant.
    Warning,
}

/// A wrong or doubtful setting in the files or the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The description.
    pub problem: String,
    /// The file and line, variable or option that holds it.
    pub origin: Origin,
}

impl Finding {
    pub(crate) fn error(problem: &str, origin: Origin) -> Self {
        Self { severity: Severity::Error, problem: problem.to_owned(), origin }
    }

    pub(crate) fn warning(problem: String, origin: Origin) -> Self {
        Self { severity: Severity::Warning, problem, origin }
    }

    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Invalid { problem, origin, .. } => Self::error(problem, origin.clone()),
            other => Self::error(&other.report(), Origin::Unknown),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {word}: {}", self.origin, self.problem)
    }
}

/// Reports doubtful settings of every profile: sections that were ignored, misspelt keys, and
/// `mfa_serial` or `source_profile` without a role.
pub(crate) fn lint(profiles: &Profiles) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (header, origin) in &profiles.ignored {
        let problem = if header.split_whitespace().count() > 1 && !header.contains('"') {
            format!("section [{header}] is ignored: a name with blanks, or a missing prefix")
        } else {
            format!("section [{header}] is ignored; did you mean [profile {header}]?")
        };
        findings.push(Finding::warning(problem, origin.clone()));
    }
    for (name, profile) in &profiles.profiles {
        let has_role = profile.property("role_arn").is_some();
        for key in ["mfa_serial", "source_profile", "external_id", "credential_source"] {
            if let Some(property) = profile.property(key).filter(|_| !has_role) {
                let problem = format!("{key} in profile {name} does nothing without role_arn");
                findings.push(Finding::warning(problem, property.origin()));
            }
        }
        for (key, property) in &profile.properties {
            if !KNOWN.contains(&key.as_str())
                && let Some(meant) = KNOWN.iter().find(|known| distance_is_small(known, key))
            {
                let problem = format!("unknown key {key} in profile {name}; did you mean {meant}?");
                findings.push(Finding::warning(problem, property.origin()));
            }
        }
    }
    findings
}

/// Reports where the AWS CLI and the AWS SDKs read `files` differently.
#[must_use]
pub fn differences(files: &[SharedFile]) -> Vec<Finding> {
    let sdk = Profiles::parse(files, Dialect::Sdk);
    let cli = Profiles::parse(files, Dialect::Cli);
    let (sdk, cli) = match (sdk, cli) {
        (Ok(sdk), Ok(cli)) => (sdk, cli),
        (Ok(_), Err(error)) => return vec![Finding::of(&error).says("the AWS CLI refuses this")],
        (Err(error), Ok(_)) => return vec![Finding::of(&error).says("the AWS SDKs refuse this")],
        (Err(_), Err(_)) => return Vec::new(),
    };
    let mut findings = Vec::new();
    for (name, profile) in &cli.profiles {
        let Some(other) = sdk.profiles.get(name) else {
            let problem = format!("only the AWS CLI reads profile {name:?}");
            findings.push(Finding::warning(problem, profile.origin.clone()));
            continue;
        };
        for (key, property) in &profile.properties {
            if other.properties.get(key).is_none_or(|theirs| theirs.value != property.value) {
                let problem = format!("the AWS CLI reads another value of {key} in profile {name}");
                findings.push(Finding::warning(problem, property.origin()));
            }
        }
    }
    for (name, profile) in &sdk.profiles {
        if !cli.profiles.contains_key(name) {
            let problem = format!("only the AWS SDKs read profile {name:?}");
            findings.push(Finding::warning(problem, profile.origin.clone()));
        }
    }
    findings
}

impl Finding {
    fn says(mut self, who: &str) -> Self {
        self.severity = Severity::Warning;
        self.problem = format!("{who}: {}", self.problem);
        self
    }
}

/// Returns whether the keys differ by at most one inserted, deleted or replaced character.
fn distance_is_small(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > 1 {
        return false;
    }
    let front = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let room = a.len().min(b.len()) - front;
    let back = a.iter().rev().zip(b.iter().rev()).take(room).take_while(|(x, y)| x == y).count();
    a.len().max(b.len()) - front - back <= 1
}

/// The known keys about credentials, region and endpoint. Other keys are not checked.
const KNOWN: [&str; 34] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_security_token",
    "aws_account_id",
    "ca_bundle",
    "credential_process",
    "credential_source",
    "duration_seconds",
    "ec2_metadata_service_endpoint",
    "ec2_metadata_service_endpoint_mode",
    "ec2_metadata_v1_disabled",
    "endpoint_url",
    "external_id",
    "ignore_configured_endpoint_urls",
    "login_session",
    "metadata_service_num_attempts",
    "metadata_service_timeout",
    "mfa_serial",
    "region",
    "role_arn",
    "role_session_name",
    "services",
    "source_profile",
    "sso_account_id",
    "sso_region",
    "sso_registration_scopes",
    "sso_role_name",
    "sso_session",
    "sso_start_url",
    "use_dualstack_endpoint",
    "use_fips_endpoint",
    "web_identity_token_file",
    "output",
];
