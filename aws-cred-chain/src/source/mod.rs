//! The sources of credentials, one file per source.

pub(crate) mod call;
pub(crate) mod cognito;
pub(crate) mod container;
#[cfg(feature = "login")]
pub(crate) mod dpop;
pub(crate) mod environment;
pub(crate) mod imds;
pub(crate) mod json;
pub(crate) mod login;
#[cfg(any(feature = "login", feature = "roles-anywhere"))]
mod pem;
pub(crate) mod process;
pub(crate) mod refusal;
#[cfg(feature = "roles-anywhere")]
pub(crate) mod roles_anywhere;
pub(crate) mod s3_express;
pub(crate) mod session;
pub(crate) mod sso;
pub(crate) mod sts;
pub(crate) mod text;
pub(crate) mod xml;
