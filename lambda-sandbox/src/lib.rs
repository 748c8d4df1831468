//! Sandboxes on this machine, for functions as a service and for any untrusted program.
//!
//! A [`Backend`] makes a [`Sandbox`] from a [`SandboxSpec`]. A sandbox either runs a program to its
//! end in one call ([`Backend::run`]), or it serves one function, one invocation at a time. A
//! function's sandbox is created and initialised, is then idle (frozen if the backend can freeze)
//! and busy in turn, and is shut down or destroyed in the end. The states are types, so a call that
//! is not allowed in a state does not compile. Functions use the Lambda Runtime API (2018-06-01)
//! and Extensions API (2020-01-01), which [`runtime_api`] serves. So unmodified Lambda runtimes run
//! here.
//!
//! This crate does not choose a sandbox for an invocation and does not store code.
//!
//! # Example
//!
//! ```no_run
//! # #[cfg(not(all(feature = "linux", target_os = "linux", target_arch = "x86_64")))] fn main() {}
//! # #[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
//! # mod linux {
//! use lambda_sandbox::{Backend, Root, SandboxSpec, linux::LinuxBackend};
//! use std::time::Duration;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let spec = SandboxSpec::new(Root::of_machine(), ["/bin/sh", "-c", "wc -l"])
//!         .with_stdin("one\ntwo\n")
//!         .with_memory_mb(64)
//!         .with_wall_time(Duration::from_secs(1));
//!     let done = LinuxBackend::new()?.run(spec).await?;
//!     assert_eq!(done.stdout, "2\n");
//!     println!("{}, using {:?}", done.finished.ended_by, done.finished.usage);
//!     Ok(())
//! }
//! # }
//! # #[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
//! # fn main() {}
//! ```
//!
//! # Contract
//!
//! 1. Dropping a sandbox, or the future of any of its methods, ends the sandbox and releases its
//!    resources.
//! 2. [`Sandbox::invoke`] returns at the answer, at the timeout or at the runtime's end, whichever
//!    is first.
//! 3. Call [`Sandbox::settle`] after each answer. The sandbox is idle again when it returns.
//! 4. Call [`Backend::sweep`] at start-up. It removes what crashed host processes left, and never
//!    affects a live sandbox.
//!
//! # A function on the fake backend
//!
//! ```
//! use std::time::Duration;
//! use lambda_sandbox::fake::{FakeAnswer, FakeBackend};
//! use lambda_sandbox::{Answer, Backend, Invocation, Root, SandboxSpec};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = FakeBackend::new()
//!     .with_handler("echo", |invocation| FakeAnswer::success(invocation.payload.clone()));
//! let spec = SandboxSpec::new(Root::empty(), ["/bootstrap"]).named("echo");
//! let (idle, _report) = backend.create(spec).await?.init().await?;
//! let (outcome, busy) = idle.invoke(Invocation::new("id-1", "{}", Duration::from_secs(3))).await?;
//! assert!(matches!(outcome.answer, Answer::Success(response) if response.body == "{}"));
//! let idle = busy.ok_or("usable")?.settle().await?;
//! idle.destroy().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `runtime-api` (default): the Runtime API server and the `process` backend.
//! - `linux` (default): the Linux backend, on x86-64 Linux.
//! - `systemd`: control groups in a scope of systemd's ([`linux::Settings::in_systemd_scope`]).
//! - `oci`: roots from OCI images, for the Linux backend.
//! - `remote`: any backend behind a byte stream.
//! - `vm`: sandboxes in virtual machines, on x86-64 Linux with KVM.
#![deny(unsafe_code)]

mod backend;
#[cfg(feature = "runtime-api")]
mod budget;
mod capture;
pub mod conformance;
mod driver;
mod error;
pub mod fake;
mod future;
mod handle;
mod invocation;
mod isolation;
mod life;
#[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "system calls that neither std nor nix offers, one to a wrapper")]
pub mod linux;
pub mod log;
mod machine;
#[cfg(all(feature = "oci", target_os = "linux", target_arch = "x86_64"))]
pub mod oci;
pub mod pool;
mod pressure;
#[cfg(feature = "runtime-api")]
#[cfg(unix)]
#[expect(unsafe_code, reason = "limits are set between fork and exec")]
pub mod process;
#[cfg(all(feature = "remote", unix))]
pub mod remote;
#[cfg(feature = "runtime-api")]
pub mod runtime_api;
mod spec;
#[cfg(all(feature = "runtime-api", unix))]
#[expect(unsafe_code, reason = "two calls on pipes that neither std nor tokio offers")]
pub mod supervise;
#[cfg(all(feature = "vm", target_os = "linux", target_arch = "x86_64"))]
pub mod vm;
mod vms;

pub use backend::{Backend, Swept};
pub use capture::{Completed, OUTPUT_BYTES_KEPT};
pub use driver::{Driver, Killer};
pub use error::Error;
pub use future::BoxFuture;
pub use handle::{EVENTS_KEPT, Event, Events, Exec, Executed, Handle, Live, LiveUsage};
pub use invocation::{
    Answer, EndedBy, Exit, Finished, FunctionError, InitFailure, InitReport, Invocation, Outcome,
    Response, ShutdownReason, StreamPart, Usage,
};
pub use isolation::{Capability, Defence, Isolation};
pub use life::{After, Busy, Created, Ended, Failed, FailedInit, Idle, Sandbox};
pub use log::{LogLine, LogSink, MemoryLog, NoLog, Stream};
pub use pressure::{Pressure, Stall};
pub use spec::{
    Bind, BlockIo, CPU_WEIGHT_MAX, ENVIRONMENT_BYTES_MAX, ENVIRONMENT_MAX, Interface, LAYERS_MAX,
    Limits, Link, Network, NewInterface, NewLink, OnceReader, PROCESSORS_MAX, ROOT_PARTS_MAX,
    ResourceLimits, Root, STACK_BYTES_MIN, STDIN_BYTES_MAX, STREAM_BYTES_FREE, SandboxSpec,
    SmallFile, Stdin, TIME_MAX, TimeLimits,
};
pub use vms::{Vm, VmProvider, VmSize};

#[cfg(doctest)]
#[cfg(all(feature = "linux", target_os = "linux", target_arch = "x86_64"))]
#[doc = include_str!("../README.md")]
struct Readme;
