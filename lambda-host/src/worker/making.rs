//! Makes a sandbox of a function: brings its code here, specifies it, and waits for its init.

use std::sync::Arc;
use std::time::Duration;

use lambda_sandbox::{
    Backend, Created, FailedInit, Idle, InitFailure, LogSink, Sandbox, SandboxSpec, ShutdownReason,
};
use tokio::time::Instant;

use super::context::Context;
use super::failure::Failure;
use super::log::{INIT_TIMEOUT, Phase, SandboxLog};
use super::protocol::{Deployment, InterfaceId};
use super::specification::{Folders, specify, stand_in_credentials};
use crate::blocking::blocking;
use crate::code::CodeLease;
use crate::error::{Error, with_causes};
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
    /// Holds the function's code until the sandbox is gone.
    pub(super) code: CodeLease,
    /// Holds the files of its layers.
    pub(super) layers: Option<CodeLease>,
    pub(super) log: Arc<SandboxLog>,
}

/// A sandbox that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) state: State,
    pub(super) init_duration: Duration,
    /// How long its credentials hold; `None` for ever.
    pub(super) usable_for: Option<Duration>,
    /// Its connection to a network interface, dropped after the sandbox.
    pub(super) attached: Option<Attached>,
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
    /// Brings the function's code here where it is not.
    async fn fetch_code(&self) -> Result<(), String> {
        let (lease, digest) = (self.code.clone(), &self.deployment.code);
        let here = blocking(move || Ok(lease.is_present())).await;
        if here.map_err(|error| with_causes(&error))? {
            return Ok(());
        }
        let fetched = async {
            let zip = self.context.fetch(digest).await?;
            let store = self.context.code.clone();
            let (found, lease) = blocking(move || store.put(&zip)).await?;
            // Held by `self.code` from here on.
            drop(lease);
            Ok::<_, Error>(found)
        };
        match fetched.await {
            Ok(found) if found.sha256 == digest.sha256 => Ok(()),
            Ok(found) => Err(format!("code {} came for {}", found.hex(), digest.hex())),
            Err(error) => Err(format!("code {}: {}", digest.hex(), with_causes(&error))),
        }
    }

    /// Brings the files of the function's layers here where they are not.
    async fn fetch_layers(&self) -> Result<(), String> {
        let Some(lease) = self.layers.clone() else { return Ok(()) };
        let fetched = async {
            let here = lease.clone();
            if blocking(move || Ok(here.is_present())).await? {
                return Ok(());
            }
            let mut zips = Vec::new();
            for layer in &self.deployment.config.layers {
                zips.push(self.context.fetch(&layer.code).await?);
            }
            let store = self.context.code.clone();
            blocking(move || store.put_merged(&lease, &zips)).await
        };
        fetched.await.map_err(|error: Error| format!("layers: {}", with_causes(&error)))
    }

    /// Makes the sandbox and waits for its init, at the most `init_max` or else as long as Lambda
    /// does.
    pub(super) async fn make(&self, init_max: Option<Duration>) -> Result<Made, Unmade> {
        self.fetch_code().await.map_err(Unmade::Machine)?;
        self.fetch_layers().await.map_err(Unmade::Machine)?;
        let folders = Folders {
            code: self.code.folder(),
            layers: self.layers.as_ref().map(CodeLease::folder),
        };
        let runtimes = &self.context.runtimes;
        let spec = specify(&self.deployment, self.log.stream(), runtimes, &folders);
        let mut spec = spec.map_err(|failure| Unmade::Function(failure, Duration::ZERO))?;
        spec.log = Arc::clone(&self.log) as Arc<dyn LogSink>;
        spec.limits.stream_bytes_per_second = self.context.stream_bytes_per_second;
        spec.times.init = init_max.unwrap_or(spec.times.init);
        let attached = self.attach(&mut spec).await.map_err(Unmade::Machine)?;
        let usable_for = self.add_credentials(&mut spec).await.map_err(Unmade::Machine)?;
        let machine = |error: &dyn std::error::Error| Unmade::Machine(with_causes(error));
        let start = Instant::now();
        let created: Sandbox<Created> =
            self.backend.create(spec).await.map_err(|error| machine(&error))?;
        let FailedInit { failure, sandbox } = match created.try_init().await {
            Ok((idle, init)) => {
                let state = State::Idle(idle);
                let init_duration = init.duration;
                return Ok(Made { state, init_duration, usable_for, attached });
            }
            Err(failed) => failed,
        };
        let init_duration = start.elapsed();
        let (unmade, reason) = match failure {
            InitFailure::TimedOut(limit) => (Unmade::InitTooLong(limit), ShutdownReason::Timeout),
            failure => match Failure::of_init(&failure) {
                Some(function) => {
                    (Unmade::Function(function, init_duration), ShutdownReason::Failure)
                }
                None => return Err(machine(&failure)),
            },
        };
        if init_max.is_some() || self.deployment.provisioned || !sandbox.can_reset() {
            sandbox.abandon(reason);
            return Err(unmade);
        }
        match &unmade {
            Unmade::Function(failure, duration) => {
                self.log.init_report(*duration, Phase::Init, &failure.status());
            }
            _ => self.log.init_report(init_duration, Phase::Init, INIT_TIMEOUT),
        }
        match sandbox.reset(reason).await {
            Ok(created) => {
                let state = State::Reset(created);
                Ok(Made { state, init_duration, usable_for, attached })
            }
            Err(_ended) => Err(unmade),
        }
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
