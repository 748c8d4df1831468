//! A role to assume, and the restrictions of its sessions.

use std::time::Duration;

use crate::trace::Origin;

/// A role to assume.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Role {
    /// The role's ARN.
    pub role_arn: String,
    /// The external id that the role's trust policy requires.
    pub external_id: Option<String>,
    /// The session's name. If it is `None`, a unique name is made.
    pub session_name: Option<String>,
    /// How long the session is valid: 15 minutes to 12 hours.
    pub duration: Option<Duration>,
    /// A policy in JSON that restricts the session.
    pub policy: Option<String>,
    /// ARNs of managed policies that restrict the session, at most 10.
    pub policy_arns: Vec<String>,
    /// Session tags, at most 50.
    pub tags: Vec<(String, String)>,
    /// Keys of the tags that are passed on to sessions opened from this one.
    pub transitive_tag_keys: Vec<String>,
    /// The source identity. It is kept through a chain of roles.
    pub source_identity: Option<String>,
    /// The MFA device whose code the role's trust policy requires.
    pub mfa_serial: Option<String>,
    /// The profile that configures the role.
    pub profile: Option<String>,
    /// Where the role is configured.
    pub origin: Origin,
}

impl Role {
    /// Returns the role `role_arn` with nothing else set.
    pub fn new(role_arn: impl Into<String>) -> Self {
        Self { role_arn: role_arn.into(), ..Self::default() }
    }

    /// Sets the session's name.
    #[must_use]
    pub fn with_session_name(mut self, name: impl Into<String>) -> Self {
        self.session_name = Some(name.into());
        self
    }

    /// Sets the external id.
    #[must_use]
    pub fn with_external_id(mut self, id: impl Into<String>) -> Self {
        self.external_id = Some(id.into());
        self
    }

    /// Sets how long the session is valid: 15 minutes to 12 hours, up to the role's own maximum.
    #[must_use]
    pub fn with_duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// Sets a policy in JSON that restricts the session.
    #[must_use]
    pub fn with_policy(mut self, policy: impl Into<String>) -> Self {
        self.policy = Some(policy.into());
        self
    }

    /// Adds a managed policy that restricts the session.
    #[must_use]
    pub fn with_policy_arn(mut self, arn: impl Into<String>) -> Self {
        self.policy_arns.push(arn.into());
        self
    }

    /// Adds a session tag. A transitive tag is passed on to sessions opened from this one.
    #[must_use]
    pub fn with_tag(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        transitive: bool,
    ) -> Self {
        let key = key.into();
        if transitive {
            self.transitive_tag_keys.push(key.clone());
        }
        self.tags.push((key, value.into()));
        self
    }

    /// Sets the source identity.
    #[must_use]
    pub fn with_source_identity(mut self, identity: impl Into<String>) -> Self {
        self.source_identity = Some(identity.into());
        self
    }

    /// Sets the MFA device.
    #[must_use]
    pub fn with_mfa_serial(mut self, serial: impl Into<String>) -> Self {
        self.mfa_serial = Some(serial.into());
        self
    }
}
