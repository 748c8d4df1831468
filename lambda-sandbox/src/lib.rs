//! Sandboxes for functions as a service on this machine.
#![deny(unsafe_code)]
