//! The sources of credentials, one a file.

pub(crate) mod call;
pub(crate) mod cognito;
pub(crate) mod container;
#[cfg(feature = "login")]
mod dpop;
pub(crate) mod environment;
pub(crate) mod imds;
mod json;
pub(crate) mod login;
pub(crate) mod process;
pub(crate) mod refusal;
pub(crate) mod session;
pub(crate) mod sso;
pub(crate) mod sts;
pub(crate) mod xml;
