//! An in-memory world for tests: a virtual clock, scripted programs and prompts, and fakes of STS,
//! IAM Identity Center, the container endpoint and the metadata service. The fakes check the
//! requests.
//!
//! [`Recorder`] and [`Replay`] turn real answers into test data. [`VirtualClock::run`] finds waits
//! that never end.
//!
//! Nothing here touches the machine. A test that the session of a role ends while STS is down:
//!
//! ```
//! use std::time::Duration;
//! use aws_cred_chain::testing::{Fault, World};
//! use aws_cred_chain::{Cache, Chain, Options, block_on};
//!
//! let config = "[default]\nrole_arn = arn:aws:iam::123456789012:role/Reader\nsource_profile = base\n\
//!     [profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = base-secret\n";
//! let world = World::new()
//!     .user("AKIDBASE", "base-secret", "123456789012")
//!     .role("arn:aws:iam::123456789012:role/Reader")
//!     .file("/home/user/.aws/config", config);
//! let cache = Cache::new(world.context(), Chain::new(world.context(), Options::default()));
//! let first = block_on(cache.credentials()).expect("STS is up");
//!
//! world.services().fault("sts", Fault::Status(503));
//! world.clock().advance(Duration::from_secs(50 * 60)); // the session lasts an hour
//! assert_eq!(block_on(cache.credentials()).expect("still valid"), first);
//! world.clock().advance(Duration::from_secs(15 * 60));
//! assert!(block_on(cache.credentials()).is_err_and(|error| error.is_retryable()));
//! ```

#[cfg(feature = "login")]
mod browser;
mod clock;
mod drive;
mod fake_hosts;
#[cfg(feature = "login")]
mod fake_login;
mod fake_sso;
mod fake_sts;
#[cfg(feature = "login")]
mod logins;
mod recording;
mod redact;
mod scripts;
mod services;
mod world;

#[cfg(feature = "login")]
pub use browser::ScriptedBrowser;
pub use clock::VirtualClock;
pub use drive::WaitsForEver;
pub use recording::{Recorder, Replay};
pub use scripts::{ScriptedCommands, ScriptedPrompt};
pub use services::{Fault, Role, Seen, Services};
pub use world::World;
