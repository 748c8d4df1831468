//! Builds the in-memory world of a test in a few lines.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Fault, Role, ScriptedCommands, ScriptedPrompt, Services, VirtualClock};
use crate::memory::{MapEnv, MapFiles};
use crate::world::{CommandOutput, Context};

/// Everything that a chain can reach, in memory. `HOME` is `/home/user`. The clock starts at
/// 2026-01-01 and moves when all futures wait. No metadata service answers until a test starts one.
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
    /// Returns a world with nothing but a home folder.
    #[must_use]
    pub fn new() -> Self {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        Self::at(VirtualClock::new(start))
    }

    /// Returns such a world with the clock `clock`.
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

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.files.put(path, content);
        self
    }

    /// Adds a user to STS. Requests signed with these keys are accepted; others are refused.
    #[must_use]
    pub fn user(self, access_key_id: &str, secret_access_key: &str, account: &str) -> Self {
        self.services.add_user(access_key_id, secret_access_key, account);
        self
    }

    /// Adds a role to STS that any known user may assume.
    #[must_use]
    pub fn role(self, role_arn: &str) -> Self {
        self.services.add_role(Role::new(role_arn));
        self
    }

    /// Adds a role to STS that is assumed with a web identity token.
    #[must_use]
    pub fn web_identity_role(self, role_arn: &str, token: &str) -> Self {
        self.services.add_role(Role::new(role_arn).with_web_identity(token));
        self
    }

    /// Adds a role to STS that requires a code of an MFA device, and a person who enters that code.
    #[must_use]
    pub fn mfa_role(self, role_arn: &str, serial: &str, code: &str) -> Self {
        self.services.add_role(Role::new(role_arn).with_mfa(serial, code));
        self.prompt.put(code);
        self
    }

    /// Adds a role to STS that requires an external id.
    #[must_use]
    pub fn external_id_role(self, role_arn: &str, external_id: &str) -> Self {
        self.services.add_role(Role::new(role_arn).with_external_id(external_id));
        self
    }

    /// Adds a role to STS that requires a code of an MFA device and an external id, and a person
    /// who enters that code.
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

    /// Adds a program that prints `output` and exits with 0.
    #[must_use]
    pub fn process(self, program: &str, output: &str) -> Self {
        self.commands.put(program, CommandOutput::new(0, output));
        self
    }

    /// Adds a program that runs for ever.
    #[must_use]
    pub fn hanging_process(self, program: &str) -> Self {
        self.commands.put_hanging(program);
        self
    }

    /// Makes a service fail, as [`Services::fault`] does.
    #[must_use]
    pub fn fault(self, service: &str, fault: Fault) -> Self {
        self.services.fault(service, fault);
        self
    }

    /// Returns a context that reaches this world.
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

    /// Returns the scripted programs.
    #[must_use]
    pub fn commands(&self) -> &ScriptedCommands {
        &self.commands
    }

    /// Returns a scripted person with a browser, for logins.
    #[cfg(feature = "login")]
    #[must_use]
    pub fn browser(&self) -> super::ScriptedBrowser {
        super::ScriptedBrowser::new(self.services.clone())
    }

    /// Returns the scripted person who enters MFA codes.
    #[must_use]
    pub fn prompt(&self) -> &ScriptedPrompt {
        &self.prompt
    }
}
