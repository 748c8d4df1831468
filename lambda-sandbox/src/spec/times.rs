//! The time limits of a sandbox, as data.

use std::time::Duration;

use crate::Error;

/// The time limits of the phases of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// From the start of the runtime and the extensions until all of them ask for their first
    /// event. Lambda gives 10 s.
    pub init: Duration,
    /// From the restore of a snapshot until the runtime has run its hooks and asks for its first
    /// event. Lambda gives 10 s.
    pub restore: Duration,
    /// From the answer until the runtime and the extensions ask for the next event.
    pub settle: Duration,
    /// At a shutdown with external extensions: from SIGTERM to SIGKILL of the runtime. Lambda gives
    /// 300 ms, which count towards the extensions' time.
    pub shutdown_runtime: Duration,
    /// From the SHUTDOWN event to the kill if only internal extensions are registered. Lambda gives
    /// 500 ms. Without extensions there is no wait.
    pub shutdown_internal: Duration,
    /// From the SHUTDOWN event to the kill if there is an external extension. Lambda gives 2,000
    /// ms.
    pub shutdown_external: Duration,
    /// The wall time of a program for [`crate::Sandbox::run`]. `None` means no limit.
    pub run: Option<Duration>,
    /// The processor time of all processes together for [`crate::Sandbox::run`]. `None` means no
    /// limit. The program is killed within a few milliseconds after the limit, because the time is
    /// polled from the control group.
    pub run_processor: Option<Duration>,
}

/// The largest time limit, 366 days, so that no clock overflows.
pub const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl TimeLimits {
    pub(super) fn check(&self) -> Result<(), Error> {
        for (setting, time) in [
            ("times.init", self.init),
            ("times.restore", self.restore),
            ("times.settle", self.settle),
            ("times.shutdown_runtime", self.shutdown_runtime),
            ("times.shutdown_internal", self.shutdown_internal),
            ("times.shutdown_external", self.shutdown_external),
            ("times.run", self.run.unwrap_or_default()),
            ("times.run_processor", self.run_processor.unwrap_or_default()),
        ] {
            if time > TIME_MAX {
                return Err(Error::invalid(
                    setting,
                    format!("{time:?}"),
                    format!("at most {TIME_MAX:?}"),
                ));
            }
        }
        Ok(())
    }
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            init: Duration::from_secs(10),
            restore: Duration::from_secs(10),
            settle: Duration::from_secs(2),
            shutdown_runtime: Duration::from_millis(300),
            shutdown_internal: Duration::from_millis(500),
            shutdown_external: Duration::from_secs(2),
            run: None,
            run_processor: None,
        }
    }
}
