//! AWS credential, region and endpoint resolution that explains itself, with a test kit.
//!
//! The crate contains the AWS CLI's chain of credential sources: explicit options, environment,
//! shared files (roles, web identity, SSO, login, processes, keys), container endpoint and EC2
//! metadata. MFA and the AWS CLI's own cache are supported. Beside the chain it has:
//!
//! - a single-flight [`Cache`],
//! - a [`Trace`] of every step, and a [`Plan`] that needs no network,
//! - Signature Version 4 and 4a ([`sign`]),
//! - an in-memory world for tests ([`testing`]).
//!
//! It calls only services that give credentials. A chain starts no browser: its error names the
//! command that logs in. The module `login` logs a person in.
//!
//! The only global state is one thread for timers and, with the feature `tokio`, one thread for
//! input and output.
//!
//! ```
//! # use aws_cred_chain::testing::World;
//! use aws_cred_chain::{Cache, Chain, Context, Options, block_on};
//!
//! let context = Context::real(); // Feature `tokio` gives it a network.
//! # let context = World::new().file("/home/user/.aws/credentials", "[default]\n\
//! #     aws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n").context();
//! let chain = Chain::new(context.clone(), Options::default());
//! let resolved = block_on(chain.resolve())?;
//! println!("{} from {}", resolved.credentials.access_key_id, resolved.credentials.source);
//! print!("{}", resolved.trace); // Each step, with its setting's file and line.
//! let cache = Cache::new(context, chain); // One load for all callers, renewed ahead of expiry.
//! let credentials = block_on(cache.credentials())?;
//! # assert_eq!(credentials.access_key_id, "AKIDEXAMPLE");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Contract
//!
//! 1. Every effect goes through the [`Context`], whose parts are traits of few methods.
//!    [`Context::real`] is this machine. [`Context::empty`] has no environment, files or network.
//! 2. The resolving code needs no runtime: any executor may drive it, or [`block_on`].
//! 3. If a source is not configured, the chain asks the next one. If a source is configured and
//!    broken, the chain stops with an [`Error`] whose variant says what to do next.
//! 4. Every wait has an end: an attempt, a source, the chain, a process and a person have budgets
//!    in [`Options`]. A dropped future leaves no work behind.
//! 5. No secret reaches a log, an error, a [`Trace`] or `Debug`.
//! 6. An invalid setting is an error. The chain never falls back to another identity than the
//!    configured one.
//! # Features
//!
//! None is on by default.
//!
//! - `tokio`: real HTTP for [`Context::real`], over hyper and rustls.
//! - `login`: logins of people (the module `login`) and renewal of `aws login` sessions. Their
//!   calls are signed with ring. `tokio` includes it.
//! - `sigv4a`: Signature Version 4a, with the crate `p256`.
//! - `roles-anywhere`: IAM Roles Anywhere (`RolesAnywhere`). Its calls are signed with ring.
//! - `tracing`: events for the `tracing` crate.
//! - `query`: JMESPath and filters (the modules `query` and `filter`).
//! - `aws-credential-types`, `object_store`, `reqsign`: the module `bridge`, which passes
//!   credentials to those crates.
//!
//! [`coming_from`] maps the names of other crates to those of this one.
#![forbid(unsafe_code)]

#[cfg(any(feature = "login", feature = "roles-anywhere", feature = "tokio"))]
mod base64;
#[cfg(any(feature = "aws-credential-types", feature = "object_store", feature = "reqsign"))]
pub mod bridge;
mod cache;
mod chain;
#[doc = include_str!("../docs/coming-from.md")]
pub mod coming_from {}
mod credentials;
mod error;
pub mod files;
mod log;
#[cfg(feature = "login")]
pub mod login;
#[cfg(feature = "query")]
pub mod query;
mod settings;
pub mod sign;
mod source;
pub mod testing;
mod timestamp;
mod trace;
mod world;

pub use cache::cli as cli_cache;
pub use cache::{Cache, CacheSettings};
pub use chain::{
    Chain, EndpointChain, FromFn, Plan, Providers, RegionChain, Resolved, Unresolved, first_try,
    from_fn, region,
};
pub use credentials::{Credentials, ProvideCredentials, Secret, Source};
pub use error::{Cause, Error};
pub use files::plan::{self, Role};
#[cfg(feature = "query")]
pub use query::filter;
pub use settings::endpoint::{Endpoint, endpoint};
pub use settings::options::{CliCache, Options, ProcessShell};
pub use source::cognito::CognitoIdentity;
pub use source::container::endpoint as container_endpoint;
pub use source::imds::endpoint as metadata_endpoint;
pub use source::login::cache_key as login_cache_key;
pub use source::process::parse as parse_process_output;
#[cfg(feature = "roles-anywhere")]
pub use source::roles_anywhere::{AnywhereRole, RolesAnywhere};
pub use source::s3_express::{S3ExpressSession, S3ExpressSessions, SessionMode};
pub use source::session::{AssumeRole, FederationToken, MfaSession, SamlRole};
pub use source::sso::Token;
pub use source::sts::{Identity, caller_identity};
pub use timestamp::iso as iso_8601;
pub use trace::{Origin, Outcome, Step, Trace};
#[cfg(feature = "tokio")]
pub use world::http as client;
pub use world::{
    BoxFuture, CaBundle, CacheLock, Clock, Command, CommandOutput, Context, Env, FileData,
    HTTP_BODY_BYTES_MAX, HttpError, Progress, Prompt, Question, ReadFile, RunCommand, SendHttp,
    Stamp, WriteFile, block_on, memory, real,
};
