//! The worker manager: sends each invocation to a sandbox, and has sandboxes made and destroyed.

pub(crate) mod driver;
