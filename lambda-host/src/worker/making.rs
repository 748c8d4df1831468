//! Makes a sandbox of a function: brings its code here, specifies it, and waits for its init.

use std::sync::Arc;
use std::time::Duration;

use lambda_sandbox::{
    Backend, Created, FailedInit, Idle, InitFailure, LogSink, Sandbox, SandboxSpec, ShutdownReason,
};
use tokio::time::Instant;

use super::container;
use super::context::Context;
use super::failure::Failure;
use super::files::{self, Files};
use super::log::{INIT_TIMEOUT, Phase, SandboxLog};
use super::protocol::{Deployment, InterfaceId};
use super::specification::{Folders, for_snapshot, specify, stand_in_credentials};
use crate::blocking::blocking;
use crate::code::CodeLease;
use crate::error::with_causes;
use crate::network::Attached;

/// Makes the sandbox of one deployment.
#[derive(Debug)]
pub(super) struct Maker {
    /// The worker's, or that of the sandbox's VM.
    pub(super) backend: Arc<dyn Backend>,
    pub(super) context: Arc<Context>,
    pub(super) deployment: Arc<Deployment>,
    /// The network interface that the sandbox is attached to.
    pub(super) interface: Option<InterfaceId>,
    /// Holds the function's files until the sandbox is gone.
    pub(super) files: Files,
    pub(super) log: Arc<SandboxLog>,
}

/// A sandbox that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) state: State,
    pub(super) began: Began,
    /// How long its credentials hold; `None` for ever.
    pub(super) usable_for: Option<Duration>,
    /// Its connection to a network interface, dropped after the sandbox.
    pub(super) attached: Option<Attached>,
}

/// How a sandbox became ready, and how long that took.
#[derive(Clone, Copy, Debug)]
pub(super) enum Began {
    Init(Duration),
    /// By a restore from a snapshot, with the function's hooks.
    Restore {
        duration: Duration,
        hooks: Duration,
    },
}

impl Began {
    pub(super) fn duration(self) -> Duration {
        match self {
            Self::Init(duration) | Self::Restore { duration, .. } => duration,
        }
    }
}

/// A sandbox between two invocations.
#[derive(Debug)]
pub(super) enum State {
    /// Its runtime waits.
    Idle(Sandbox<Idle>),
    /// Its programs have ended: the next invocation begins with an init ("suppressed init").
    Reset(Sandbox<Created>),
}

impl State {
    pub(super) async fn destroy(self) -> Result<(), lambda_sandbox::Error> {
        match self {
            Self::Idle(idle) => idle.destroy().await,
            Self::Reset(created) => created.destroy().await,
        }
    }

    pub(super) async fn shut_down(self) -> Result<(), lambda_sandbox::Error> {
        match self {
            Self::Idle(idle) => idle.shutdown(ShutdownReason::Spindown).await,
            // Nothing of the function runs.
            Self::Reset(created) => created.destroy().await,
        }
    }
}

/// Why a sandbox could not be made. Nothing of it is left.
#[derive(Debug)]
pub(super) enum Unmade {
    /// Its init took longer than it may.
    InitTooLong(Duration),
    /// By the function's fault, so long after its start.
    Function(Failure, Duration),
    /// By the machine's: the error with its causes.
    Machine(String),
}

impl Maker {
    /// Makes the sandbox and waits for its init, at the most `init_max` or else as long as Lambda
    /// does.
    pub(super) async fn make(&self, init_max: Option<Duration>) -> Result<Made, Unmade> {
        let files = self.files.bring(&self.context, &self.deployment).await;
        files.map_err(Unmade::Machine)?;
        let mut spec =
            self.specify().map_err(|failure| Unmade::Function(failure, Duration::ZERO))?;
        if self.snap_starts() {
            for_snapshot(&mut spec.environment);
        }
        spec.log = Arc::clone(&self.log) as Arc<dyn LogSink>;
        spec.limits.stream_bytes_per_second = self.context.stream_bytes_per_second;
        spec.times.init = init_max.unwrap_or(spec.times.init);
        let attached = self.attach(&mut spec).await.map_err(Unmade::Machine)?;
        self.add_own_files(&mut spec).await.map_err(Unmade::Machine)?;
        let usable_for = self.add_credentials(&mut spec).await.map_err(Unmade::Machine)?;
        if self.snap_starts() {
            // Files, settings and limits are part of a snapshot's key in the backend.
            let Deployment { arn, version, .. } = &*self.deployment;
            spec.snapshot = Some(format!("{arn}:{version}"));
        }
        let start = Instant::now();
        let folder = spec.working_directory.clone();
        let created: Sandbox<Created> = match self.backend.create(spec).await {
            Ok(created) => created,
            Err(error) => {
                let failure = Failure::of_working_directory(&error, &folder);
                let function = failure.filter(|_| self.deployment.config.image.is_some());
                return Err(match function {
                    Some(failure) => Unmade::Function(failure, start.elapsed()),
                    None => Unmade::Machine(with_causes(&error)),
                });
            }
        };
        let (state, began) = self.init(created, start, init_max.is_none()).await?;
        Ok(Made { state, began, usable_for, attached })
    }

    /// Runs the init, or the hooks after a restore. Keeps the sandbox after an init that failed, if
    /// `keeps` says so and it can be reset.
    async fn init(
        &self,
        created: Sandbox<Created>,
        start: Instant,
        keeps: bool,
    ) -> Result<(State, Began), Unmade> {
        let is_restored = created.is_restored();
        if is_restored {
            self.log.restore_start(&self.deployment);
        } else if self.snap_starts() {
            self.log.init_start(&self.deployment);
        }
        let FailedInit { failure, sandbox } = match created.try_init().await {
            Ok((idle, init)) if is_restored => {
                let (duration, hooks) = (start.elapsed(), init.duration);
                self.log.restore_report(duration, "");
                return Ok((State::Idle(idle), Began::Restore { duration, hooks }));
            }
            Ok((idle, init)) => return Ok((State::Idle(idle), Began::Init(init.duration))),
            Err(failed) => failed,
        };
        let duration = start.elapsed();
        let function = |failure| Unmade::Function(failure, duration);
        let (unmade, reason) = match failure {
            InitFailure::TimedOut(limit) => (Unmade::InitTooLong(limit), ShutdownReason::Timeout),
            InitFailure::RestoreTimedOut(limit) => {
                (function(Failure::restore_timed_out(limit)), ShutdownReason::Timeout)
            }
            failure => match self.failure_of_init(&failure) {
                Some(failure) => (function(failure), ShutdownReason::Failure),
                None => return Err(Unmade::Machine(with_causes(&failure))),
            },
        };
        let status = match &unmade {
            Unmade::Function(failure, _) => failure.status(),
            _ => INIT_TIMEOUT.to_owned(),
        };
        if is_restored {
            self.log.restore_report(duration, &status);
        }
        if is_restored || !keeps || self.deployment.provisioned || !sandbox.can_reset() {
            sandbox.abandon(reason);
            return Err(unmade);
        }
        self.log.init_report(duration, Phase::Init, &status);
        match sandbox.reset(reason).await {
            Ok(created) => Ok((State::Reset(created), Began::Init(duration))),
            Err(_ended) => Err(unmade),
        }
    }

    /// Returns whether the sandbox starts from a snapshot, if there is one.
    pub(super) fn snap_starts(&self) -> bool {
        self.context.snap_starts(&self.deployment)
    }

    /// Specifies the sandbox; the function's files are here.
    fn specify(&self) -> Result<SandboxSpec, Failure> {
        let (deployment, stream) = (&self.deployment, self.log.stream());
        match (&self.files, &deployment.config.image) {
            (Files::Image(layers), Some(image)) => {
                container::specify(deployment, image, stream, files::folders(layers))
            }
            (Files::Image(_), None) => Err(Failure::no_entry_point()),
            (Files::Archives { code, layers }, _) => {
                let code = code.folder();
                let folders = Folders { code, layers: layers.as_ref().map(CodeLease::folder) };
                specify(deployment, stream, &self.context.runtimes, &folders)
            }
        }
    }

    /// Tells how an init failed; `None` when it was not by the function's fault.
    pub(super) fn failure_of_init(&self, failure: &InitFailure) -> Option<Failure> {
        Failure::of_init(failure, self.deployment.config.image.is_some())
    }

    /// Puts the files that a sandbox has of its own into a layer over those of its image. The root
    /// of an archive's function has them anyway.
    async fn add_own_files(&self, spec: &mut SandboxSpec) -> Result<(), String> {
        if spec.root.layers.is_empty() {
            return Ok(());
        }
        let own = std::mem::take(&mut spec.root.files);
        let (store, lease) = (self.context.code.clone(), self.context.own_layer(&own));
        spec.root.layers.push(lease.folder());
        let written = blocking(move || {
            store.put_folder(&lease, |folder| container::write_own_layer(folder, &own))
        });
        written.await.map_err(|error| with_causes(&error))
    }

    /// Attaches the sandbox to its network interface, if it has one.
    async fn attach(&self, spec: &mut SandboxSpec) -> Result<Option<Attached>, String> {
        let Some(interface) = self.interface else { return Ok(None) };
        let Some(interfaces) = &self.context.interfaces else {
            return Err("this worker attaches no sandbox to network interfaces".to_owned());
        };
        let attached = interfaces.attach(interface).await;
        let mut attached = attached.map_err(|error| error.to_string())?;
        attached.equip(spec);
        Ok(Some(attached))
    }

    /// Adds the credentials of the function's role; returns how long the sandbox may use them.
    #[cfg(feature = "roles")]
    async fn add_credentials(&self, spec: &mut SandboxSpec) -> Result<Option<Duration>, String> {
        let config = &self.deployment.config;
        let Some(roles) = self.context.roles.as_ref().filter(|_| !config.role.is_empty()) else {
            spec.environment.extend(stand_in_credentials());
            return Ok(None);
        };
        let session = roles.session(&config.role, config.name.as_str()).await;
        let credentials =
            session.map_err(|error| format!("role {}: {}", config.role, with_causes(&error)))?;
        spec.environment.extend(super::roles::variables(&credentials));
        Ok(roles.usable_for(&credentials, config.timeout))
    }

    #[cfg(not(feature = "roles"))]
    #[expect(clippy::unused_async, reason = "the same form as with the feature")]
    async fn add_credentials(&self, spec: &mut SandboxSpec) -> Result<Option<Duration>, String> {
        spec.environment.extend(stand_in_credentials());
        Ok(None)
    }
}
