//! A small virtual machine monitor.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![deny(unsafe_code)]

mod boot;
mod bus;
mod config;
mod control;
mod cpu;
mod devices;
mod error;
mod filter;
mod link;
mod machine;
#[expect(unsafe_code, reason = "guest memory is given back with madvise")]
mod memory;
mod mmio;
#[expect(unsafe_code, reason = "KVM's structures are written and read as bytes")]
mod plain;
mod poll;
#[expect(unsafe_code, reason = "signal handlers and settings of the allocator")]
mod process;
mod service;
mod snapshot;
#[cfg(test)]
mod testing;
mod vcpu;
mod vm;
mod wire;

pub use config::{Config, Disk, Network, Packets};
pub use control::{Cause, Report, SystemCalls};
pub use error::Error;
pub use service::serve;
pub use vm::{Event, Resources, Source, Vm, memory_file};
