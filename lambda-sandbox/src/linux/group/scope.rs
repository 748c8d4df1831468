//! A transient systemd scope that contains a host's control groups.
//!
//! On a machine that systemd runs, only systemd may make groups outside of delegated ones (the
//! single-writer rule, CGROUP_DELEGATION of systemd). A scope with `Delegate=yes` is delegated to
//! us. It lives as long as a process is in it: a `cat` whose standard input ends with the host,
//! however that ends. systemd then removes the scope with all groups in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cgroups_rs::systemd::props::PropertiesBuilder;
use cgroups_rs::systemd::{DEFAULT_SLICE, SystemdClient};

use crate::Error;
use crate::linux::features::Rights;
use crate::linux::group::cgroup::Hierarchies;

/// A folder that exists if systemd runs the machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// The longest wait until systemd has made the scope.
const START_TIME: Duration = Duration::from_secs(10);
/// The name of the holder's group in the scope. The scope's own group must have no processes, or it
/// could not enable controllers for its children.
const HOLDER: &str = "holder";

/// A scope. It ends when this is dropped or the host ends.
#[derive(Debug)]
pub(in crate::linux) struct Scope {
    unit: String,
    holder: Holder,
}

#[derive(Debug)]
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        // The process ends at the end of its input.
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

impl Scope {
    /// Asks systemd for a scope and waits for it. `host` is the host's instance number.
    pub(in crate::linux) fn start(host: u32) -> Result<Self, Error> {
        check()?;
        let mut holder = Command::new("cat");
        holder.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = Holder(holder.spawn().map_err(|source| {
            Error::failed("starting the process that holds the scope", "cat", source)
        })?);
        let unit = format!("lambda-sandbox-{host}-{}.scope", std::process::id());
        let properties = PropertiesBuilder::default_cgroup(DEFAULT_SLICE, &unit)
            .description("Sandboxes of lambda-sandbox".to_owned())
            .pids(vec![holder.0.id()])
            .build();
        let failed = |error| Error::step("asking systemd for a scope", io::Error::other(error));
        SystemdClient::new(&unit, properties).and_then(|client| client.start()).map_err(failed)?;
        let scope = Self { unit, holder };
        scope.wait()?;
        Ok(scope)
    }

    /// Waits until the holder is in the scope, because systemd answers before it has made the
    /// scope.
    fn wait(&self) -> Result<(), Error> {
        let until = Instant::now() + START_TIME;
        while !self.groups()?.contains(&self.unit) {
            if Instant::now() > until {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                return Err(Error::step("waiting for systemd to make the scope", late));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Returns the scope's group in each hierarchy, or the root of the hierarchy where systemd
    /// makes no group.
    pub(in crate::linux) fn hierarchies(
        &self,
        mounted: &Hierarchies,
    ) -> Result<Hierarchies, Error> {
        let within = |path: &Path| path.components().any(|part| part.as_os_str() == &*self.unit);
        if let Some(scope) = mounted.below(&self.groups()?, within).v2 {
            let leaf = scope.join(HOLDER);
            let failed = |source| Error::failed("making a control group", &leaf, source);
            fs::create_dir(&leaf).map_err(failed)?;
            let process = self.holder.0.id().to_string();
            fs::write(leaf.join("cgroup.procs"), process).map_err(failed)?;
        }
        let mut found = mounted.below(&self.groups()?, within);
        for (controller, root) in &mounted.v1 {
            found.v1.entry(*controller).or_insert_with(|| root.clone());
        }
        found.v2 = found.v2.or_else(|| mounted.v2.clone());
        if let Some(v2) = &found.v2 {
            found.v2_controllers = Hierarchies::controllers_of(v2);
        }
        Ok(found)
    }

    /// Reads the groups of the holder.
    fn groups(&self) -> Result<String, Error> {
        let path = PathBuf::from(format!("/proc/{}/cgroup", self.holder.0.id()));
        fs::read_to_string(&path)
            .map_err(|source| Error::failed("looking for the scope's groups", path, source))
    }
}

fn check() -> Result<(), Error> {
    let unavailable = |why: &str, remedy| {
        Err(Error::Unavailable { what: "a scope of systemd's", why: why.to_owned(), remedy })
    };
    if !Path::new(BOOTED).is_dir() {
        return unavailable("systemd does not run this machine", "leave it out of the settings");
    }
    match Rights::own() {
        Rights::Root => Ok(()),
        Rights::User { .. } => unavailable(
            "the machine's systemd makes scopes for root only",
            "run the host in a unit with Delegate=yes, and leave the scope out of the settings",
        ),
    }
}
