//! The crate's error. Its variants differ by what the caller can do next.

use std::fmt;
use std::io;

/// An error of a card, a tunnel or an attachment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that no machine can carry out. Correct it.
    #[error("invalid {setting} {value:?}: {reason}")]
    Invalid {
        /// The name of the field.
        setting: &'static str,
        /// The value of the field.
        value: String,
        /// Why the value is invalid.
        reason: &'static str,
    },
    /// The machine, or the user's rights on it, lack something. Provide it.
    #[error("{step}: {what} is not available: {why}")]
    Unavailable {
        /// The step that needed it.
        step: Step,
        /// What is missing.
        what: &'static str,
        /// The system's message.
        why: String,
    },
    /// The operating system refused a step. Retry or report.
    #[error("{step}")]
    Failed {
        /// The failed step.
        step: Step,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A limit is reached. Use another card, or wait until a sandbox ends.
    #[error("no more {what}: {max} are in use")]
    Full {
        /// What the limit counts.
        what: &'static str,
        /// The value of the limit.
        max: usize,
    },
    /// The card has ended. Start another one.
    #[error("the card is gone")]
    Gone,
}

impl Error {
    pub(crate) fn invalid(
        setting: &'static str,
        value: impl fmt::Display,
        reason: &'static str,
    ) -> Self {
        Self::Invalid { setting, value: value.to_string(), reason }
    }

    /// Classifies the error of a step: something is unavailable, or the step failed.
    pub(crate) fn at(step: Step, source: io::Error) -> Self {
        let what = match (source.raw_os_error(), step) {
            (Some(libc::EPERM | libc::EACCES), _) => "the right (CAP_NET_ADMIN, CAP_SYS_ADMIN)",
            (Some(libc::ENOENT | libc::ENXIO | libc::ENODEV), Step::MakeTun) => "/dev/net/tun",
            (Some(libc::EOPNOTSUPP), Step::MakeLink) => "this kind of link in the kernel",
            _ => return Self::Failed { step, source },
        };
        Self::Unavailable { step, what, why: source.to_string() }
    }
}

/// Converts the error of a step to [`Error`].
pub(crate) trait Stepped<T> {
    fn step(self, step: Step) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Stepped<T> for Result<T, E> {
    fn step(self, step: Step) -> Result<T, Error> {
        self.map_err(|source| Error::at(step, source.into()))
    }
}

/// A step in creating a card, a tunnel or an attachment; errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Creating a network namespace.
    MakeNamespace,
    /// Entering a given network namespace.
    EnterNamespace,
    /// Creating a TUN device.
    MakeTun,
    /// Creating the card's link to the VPC.
    MakeLink,
    /// Finding the device of a link.
    FindDevice,
    /// Moving a device into the card's namespace.
    MoveDevice,
    /// Attaching the VPC's end of a link to its bridge.
    JoinBridge,
    /// Setting a device's address.
    SetAddress,
    /// Setting a route.
    SetRoute,
    /// Bringing a device up.
    BringUp,
    /// Setting kernel parameters of a namespace.
    SetParameters,
    /// Loading nftables rules.
    LoadRules,
    /// Reading the kernel's connection table.
    TrackConnections,
    /// Opening or binding the tunnel's UDP socket.
    OpenSocket,
    /// The WireGuard handshake with the card.
    Handshake,
    /// Starting a thread.
    StartThread,
    /// Registering a descriptor with a thread.
    Register,
    /// The caller's own preparation of an interface's namespace.
    Prepare,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::MakeNamespace => "make a network namespace",
            Self::EnterNamespace => "enter the network namespace",
            Self::MakeTun => "make a TUN device",
            Self::MakeLink => "make the link to the VPC",
            Self::FindDevice => "find the link's device",
            Self::MoveDevice => "move the device into the card's namespace",
            Self::JoinBridge => "attach the link to the VPC's bridge",
            Self::SetAddress => "set the address",
            Self::SetRoute => "set the route",
            Self::BringUp => "bring the device up",
            Self::SetParameters => "set the namespace's kernel parameters",
            Self::LoadRules => "load the card's rules",
            Self::TrackConnections => "read the table of connections",
            Self::OpenSocket => "open the tunnel's socket",
            Self::Handshake => "agree on keys with the card",
            Self::StartThread => "start a thread",
            Self::Register => "register a descriptor with the forwarding thread",
            Self::Prepare => "prepare the interface's namespace",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rights_and_devices_are_told_from_failures() {
        let at = |step, number| Error::at(step, io::Error::from_raw_os_error(number));
        let unavailable = |error| matches!(error, Error::Unavailable { .. });
        assert!(unavailable(at(Step::MakeNamespace, libc::EPERM)));
        assert!(unavailable(at(Step::MakeTun, libc::ENOENT)));
        assert!(!unavailable(at(Step::SetRoute, libc::ENOENT)));
        assert_eq!(at(Step::SetRoute, libc::EINVAL).to_string(), "set the route");
    }
}
