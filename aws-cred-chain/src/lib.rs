//! AWS credential, region and endpoint resolution that explains itself.
#![forbid(unsafe_code)]

mod blocking;
mod cache;
mod call;
mod chain;
pub mod cli_cache;
#[cfg(feature = "tokio")]
pub mod client;
mod context;
mod credentials;
mod endpoint;
mod error;
mod explain;
pub mod files;
#[cfg(feature = "query")]
pub mod filter;
mod flight;
mod log;
pub mod memory;
mod options;
pub mod plan;
#[cfg(feature = "query")]
pub mod query;
pub mod real;
mod region;
mod run;
mod session;
pub mod sign;
mod source;
pub mod testing;
mod timestamp;
mod trace;
mod xml;

pub use blocking::block_on;
pub use cache::{Cache, CacheSettings};
pub use chain::{Chain, Resolved, Unresolved};
pub use context::{
    BoxFuture, Clock, Command, CommandOutput, Context, Env, FileData, HTTP_BODY_BYTES_MAX,
    HttpError, Prompt, Question, ReadFile, RunCommand, SendHttp, WriteFile,
};
pub use credentials::{Credentials, ProvideCredentials, Secret, Source};
pub use endpoint::{Endpoint, endpoint};
pub use error::{Cause, Error};
pub use explain::Plan;
pub use options::{CliCache, Options, ProcessShell};
pub use plan::Role;
pub use region::region;
pub use session::{AssumeRole, MfaSession};
pub use source::container::endpoint as container_endpoint;
pub use source::imds::endpoint as metadata_endpoint;
pub use source::login::cache_key as login_cache_key;
pub use source::process::parse as parse_process_output;
pub use source::sso::Token;
pub use source::sts::{Identity, caller_identity};
pub use trace::{Origin, Outcome, Step, Trace};
