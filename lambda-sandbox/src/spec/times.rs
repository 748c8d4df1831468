//! How long the parts of a sandbox's life may take, as data.

use std::time::Duration;

use crate::Error;

/// How long each part of a sandbox's life may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// From the runtime's start to its first request for an invocation. Lambda gives 10 s.
    pub init: Duration,
    /// From the answer until runtime and extensions ask for the next event.
    pub settle: Duration,
    /// From SIGTERM to the kill for the runtime, at a shutdown with external extensions; Lambda gives 300 ms, which
    /// count to the extensions' time.
    pub shutdown_runtime: Duration,
    /// From SHUTDOWN to the kill when only internal extensions are registered; Lambda gives 500 ms. Without any
    /// extension there is no wait.
    pub shutdown_internal: Duration,
    /// The same with an external extension; Lambda gives 2,000 ms.
    pub shutdown_external: Duration,
    /// Life of a program that [`crate::Sandbox::run`] runs, on the wall clock; `None` is no limit.
    pub run: Option<Duration>,
    /// Processor time that all its processes together may use; `None` is no limit. It ends within a few milliseconds
    /// of its limit, as it is read from the control group and not counted by the kernel's clock.
    pub run_processor: Option<Duration>,
}

/// Longest time limit: as good as none, and no clock runs over.
pub const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl TimeLimits {
    pub(super) fn check(&self) -> Result<(), Error> {
        for (setting, time) in [
            ("times.init", self.init),
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
            settle: Duration::from_secs(2),
            shutdown_runtime: Duration::from_millis(300),
            shutdown_internal: Duration::from_millis(500),
            shutdown_external: Duration::from_secs(2),
            run: None,
            run_processor: None,
        }
    }
}
