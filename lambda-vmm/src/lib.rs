//! A small virtual machine monitor on KVM, for microVMs: virtio devices and nothing else, one
//! process a machine, snapshots and clones.
//!
//! The program that makes machines uses [`Vm`]. It starts the program `lambda-vmm` of this crate,
//! or a program of its own that calls [`serve`], once for each machine, with one end of a control
//! socket ([`Vm::control_sockets`]) as its standard input:
//!
//! 1. [`Vm::prepare`] makes an empty machine in that process. A pool of them makes starts fast.
//! 2. [`Prepared::start`] passes a [`Config`] and [`Resources`], which are descriptors. The process
//!    makes devices and processors, restricts each of its threads to a list of system calls, and
//!    only then runs the guest.
//! 3. [`Vm::event`] returns the guest's streams ([`Event::Stream`]) and the end of the machine.
//! 4. [`Vm::pause`] and [`Vm::snapshot`] save a machine, and [`Source::Snapshot`] restores it.
//!
//! ```no_run
//! use std::fs::File;
//! use std::os::fd::AsFd;
//! use std::process::{Command, Stdio};
//! use std::time::Duration;
//!
//! use lambda_vmm::{Config, Disk, Resources, Source, Vm, memory_file};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let time = Duration::from_secs(10);
//! let mut config = Config::new(128 << 20);
//! config.disks = vec![Disk::ReadOnly];
//! let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
//! let (kernel, root) = (File::open("vmlinux")?, File::open("root.erofs")?);
//! let memory = memory_file(&config)?;
//!
//! let (ours, theirs) = Vm::control_sockets()?;
//! let process = Command::new("lambda-vmm").stdin(Stdio::from(theirs)).spawn()?;
//! let prepared = Vm::prepare(ours, kvm.as_fd(), time)?;
//! let resources = Resources {
//!     memory: memory.as_fd(),
//!     boot: Source::Kernel(kernel.as_fd()),
//!     disks: &[root.as_fd()],
//!     network: None,
//! };
//! let mut vm = prepared.start(&config, &resources, time)?;
//! println!("{:?}", vm.event(time)?);
//! # drop(process);
//! # Ok(())
//! # }
//! ```
//!
//! The crate makes no sandbox for the process, no images and no kernels, and speaks no protocol
//! with the guest beyond virtio. It has no async code. On systems other than Linux on x86-64 it is
//! empty.
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
#[cfg(fuzzing)]
#[doc(hidden)]
#[path = "testing/fuzzing.rs"]
pub mod fuzzing;
mod kernel;
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
#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, expect(dead_code, reason = "a part of it is for tests alone"))]
mod testing;
mod vcpu;
mod vm;
mod wire;

/// Checks that the example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use config::{Config, Disk, Network, Packets};
pub use control::{Cause, Report, SystemCalls};
use error::During;
pub use error::Error;
pub use service::serve;
pub use vm::{Event, Prepared, Resources, Source, Vm, memory_file};
