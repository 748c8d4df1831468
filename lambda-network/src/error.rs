//! The crate's error: one variant for each thing that a caller can do next.

use std::fmt;
use std::io;

/// What went wrong, by what the caller does next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting cannot be carried out by any machine: mend it.
    #[error("invalid {setting} {value:?}: {reason}")]
    Invalid {
        /// The field.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// This machine, or this user's rights on it, lacks something: arrange it.
    #[error("{step}: {what} is not available: {why}")]
    Unavailable {
        /// The step that needed it.
        step: Step,
        /// What is missing.
        what: &'static str,
        /// How that was found.
        why: String,
    },
    /// The operating system refused one step: retry or report.
    #[error("{step}")]
    Failed {
        /// The step.
        step: Step,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A bound is reached: use another card, or wait until a sandbox is gone.
    #[error("no more {what}: {max} are in use")]
    Full {
        /// What there are no more of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The card has ended: start another.
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

    /// Sorts the system's answer to `step`: what the machine lacks, or a failure.
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

/// Turns the system's answer to a step into an [`Error`].
pub(crate) trait Stepped<T> {
    fn step(self, step: Step) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Stepped<T> for Result<T, E> {
    fn step(self, step: Step) -> Result<T, Error> {
        self.map_err(|source| Error::at(step, source.into()))
    }
}

/// The steps of making a card, a tunnel or an attachment, which errors name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Making a network namespace.
    MakeNamespace,
    /// Entering a network namespace that was given.
    EnterNamespace,
    /// Making a TUN device.
    MakeTun,
    /// Making the card's link to the VPC.
    MakeLink,
    /// Finding the device that a link was to be made of.
    FindDevice,
    /// Moving a device into the card's namespace.
    MoveDevice,
    /// Attaching the VPC's end of a link to its bridge.
    JoinBridge,
    /// Giving a device an address.
    SetAddress,
    /// Setting a route.
    SetRoute,
    /// Bringing a device up.
    BringUp,
    /// Setting the namespace's own kernel parameters.
    SetParameters,
    /// Loading the card's rules.
    LoadRules,
    /// Reading the kernel's table of connections.
    TrackConnections,
    /// Opening or binding the tunnel's UDP socket.
    OpenSocket,
    /// Agreeing on keys with the card.
    Handshake,
    /// Starting a thread.
    StartThread,
    /// Registering a descriptor with the forwarding thread.
    Register,
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
