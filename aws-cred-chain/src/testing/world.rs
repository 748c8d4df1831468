//! The world of a test, put together in a few lines.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Fault, Role, ScriptedCommands, ScriptedPrompt, Services, VirtualClock};
use crate::memory::{MapEnv, MapFiles};
use crate::world::{CommandOutput, Context};

/// Everything that a chain may touch, in memory. `HOME` is `/home/user`; the clock stands at
/// 2026-01-01 and moves when all wait; no metadata service answers until one is put there.
#[derive(Clone, Debug)]
pub struct World {
    env: MapEnv,
    files: MapFiles,
    commands: ScriptedCommands,
    prompt: ScriptedPrompt,
    clock: VirtualClock,
    services: Services,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Returns a world with a home folder and nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        Self::at(VirtualClock::new(start))
    }

    /// Returns such a world with this clock.
    #[must_use]
    pub fn at(clock: VirtualClock) -> Self {
        Self {
            env: MapEnv::new([("HOME", "/home/user")]),
            files: MapFiles::default(),
            commands: ScriptedCommands::default(),
            prompt: ScriptedPrompt::default(),
            services: Services::new(clock.clone()),
            clock,
        }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.set(name, value);
        self
    }

    /// Puts a file there.
    #[must_use]
    pub fn file(self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.files.put(path, content);
        self
    }

    /// Lets STS know a user: signatures by these keys are checked, others are refused.
    #[must_use]
    pub fn user(self, access_key_id: &str, secret_access_key: &str, account: &str) -> Self {
        self.services.add_user(access_key_id, secret_access_key, account);
        self
    }

    /// Lets STS know a role that any known user may assume.
    #[must_use]
    pub fn role(self, role_arn: &str) -> Self {
        self.services.add_role(Role::new(role_arn));
        self
    }

    /// Lets STS know a role that a web identity token opens.
    #[must_use]
    pub fn web_identity_role(self, role_arn: &str, token: &str) -> Self {
        self.services.add_role(Role::new(role_arn).with_web_identity(token));
        self
    }

    /// Lets STS know a role that asks for the code of a device, and a person who enters that code.
    #[must_use]
    pub fn mfa_role(self, role_arn: &str, serial: &str, code: &str) -> Self {
        self.services.add_role(Role::new(role_arn).with_mfa(serial, code));
        self.prompt.put(code);
        self
    }

    /// Lets STS know a role that asks for an external id.
    #[must_use]
    pub fn external_id_role(self, role_arn: &str, external_id: &str) -> Self {
        self.services.add_role(Role::new(role_arn).with_external_id(external_id));
        self
    }

    /// Lets STS know a role that asks for the code of a device and for an external id, and a person who enters
    /// that code.
    #[must_use]
    pub fn mfa_role_with_external_id(
        self,
        role_arn: &str,
        (serial, code): (&str, &str),
        external_id: &str,
    ) -> Self {
        let role = Role::new(role_arn).with_mfa(serial, code).with_external_id(external_id);
        self.services.add_role(role);
        self.prompt.put(code);
        self
    }

    /// Puts a program there that prints `output` and exits with 0.
    #[must_use]
    pub fn process(self, program: &str, output: &str) -> Self {
        self.commands.put(program, CommandOutput::new(0, output));
        self
    }

    /// Puts a program there that never ends.
    #[must_use]
    pub fn hanging_process(self, program: &str) -> Self {
        self.commands.put_hanging(program);
        self
    }

    /// Lets a service misbehave, as [`Services::fault`] does.
    #[must_use]
    pub fn fault(self, service: &str, fault: Fault) -> Self {
        self.services.fault(service, fault);
        self
    }

    /// Returns the world as the chain sees it.
    #[must_use]
    pub fn context(&self) -> Context {
        Context::empty(self.clock.clone())
            .with_env(self.env.clone())
            .with_files(self.files.clone())
            .with_cache_files(self.files.clone())
            .with_http(self.services.clone())
            .with_commands(self.commands.clone())
            .with_prompt(self.prompt.clone())
            .with_seed(7)
    }

    /// Returns the clock.
    #[must_use]
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// Returns the files.
    #[must_use]
    pub fn files(&self) -> &MapFiles {
        &self.files
    }

    /// Returns the services.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Returns the programs.
    #[must_use]
    pub fn commands(&self) -> &ScriptedCommands {
        &self.commands
    }

    /// Returns a person with a browser, for logins.
    #[cfg(feature = "login")]
    #[must_use]
    pub fn browser(&self) -> super::ScriptedBrowser {
        super::ScriptedBrowser::new(self.services.clone())
    }

    /// Returns the person to ask.
    #[must_use]
    pub fn prompt(&self) -> &ScriptedPrompt {
        &self.prompt
    }
}
