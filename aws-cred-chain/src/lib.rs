//! AWS credential, region and endpoint resolution that explains itself, with a test kit.
//!
//! The AWS CLI's chain of credential sources (explicit, environment, shared files with roles, web identity,
//! SSO, login and processes, container, EC2 metadata) with MFA and the AWS CLI's own cache; a single-flight
//! [`Cache`]; a [`Trace`] of every step; a [`Plan`] without network; Signature Version 4 and 4a ([`sign`]); and a
//! world in memory to test with ([`testing`]).
//!
//! It calls no service but those that give credentials. A chain starts no browser: it says which command logs
//! in. The module `login` logs a person in.
//! It holds no global state but one thread for timers and, with the feature `tokio`, one for input and output.
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
//!    [`Context::real`] is this machine; [`Context::empty`] is nothing.
//! 2. The resolving code needs no runtime: any executor may drive it, or [`block_on`].
//! 3. A source that is not configured lets the chain go on. One that is configured and broken stops it
//!    with an [`Error`] whose variant says what to do next.
//! 4. Every wait has an end: an attempt, a source, the chain, a process and a person have budgets in
//!    [`Options`]. A dropped future leaves no work behind.
//! 5. No secret reaches a log, an error, a [`Trace`] or `Debug`.
//! 6. A setting that cannot be meant is refused: never another identity than the one that was named.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `tokio`: real HTTP ([`Context::real`] has it then), over hyper and rustls.
//! - `login`: logins of people (the module `login`) and renewal of `aws login` sessions, whose calls are signed
//!   by ring; part of `tokio`.
//! - `sigv4a`: Signature Version 4a, with the crate `p256`.
//! - `roles-anywhere`: IAM Roles Anywhere (`RolesAnywhere`), whose calls are signed by ring.
//! - `tracing`: events for the `tracing` crate.
//! - `query`: JMESPath and filters (the modules `query` and `filter`).
//! - `aws-credential-types`, `object_store`, `reqsign`: the module `bridge`, by which those crates take
//!   credentials from this one.
//!
//! Users of other crates find their names in [`coming_from`].
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
