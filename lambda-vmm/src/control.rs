//! The messages between a machine's process and the program that made it.

use crate::wire::{Reader, Wire, Writer, structures, variants};
use crate::{Config, Error};

/// A request to a machine's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Make an empty machine. Descriptor: `/dev/kvm`.
    Prepare,
    /// Complete the machine and run it. Descriptors: the memory file, the kernel or the state file,
    /// the disks, the network device.
    Start {
        config: Config,
        boot: Boot,
    },
    /// Stop all processors.
    Pause,
    Resume,
    /// Write state and memory to the two passed files. The machine must be paused.
    Snapshot,
    /// Connect the passed socket to a port of the guest.
    Connect {
        port: u32,
    },
    /// Report the counts of exits and the console's output.
    Report,
    /// Put the passed image into a slot, or empty the slot if none is passed.
    Attach {
        disk: u8,
    },
}

/// How the machine comes to life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// From the entry point of a kernel.
    Kernel,
    /// From the state of a snapshot.
    Snapshot,
}

/// A message of a machine's process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Reply {
    /// The machine is made and can be completed.
    Prepared,
    /// The machine runs, filters are in force.
    Started {
        system_calls: SystemCalls,
    },
    /// The guest has connected to this port. The stream is passed along.
    Stream {
        port: u32,
    },
    Paused,
    Resumed,
    Saved {
        memory_bytes: u64,
    },
    Connected,
    Attached,
    Report(Report),
    /// A request failed. The machine goes on.
    Refused {
        message: String,
    },
    /// The machine has ended.
    Ended {
        cause: Cause,
        report: Report,
    },
}

/// How many system calls each kind of thread may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemCalls {
    /// Of a thread that runs a processor.
    pub vcpu: u16,
    /// Of the thread that serves the devices.
    pub devices: u16,
}

/// Counts of exits to the VMM since the start, and the end of the console's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Reads of device registers.
    pub mmio_reads: u64,
    /// Writes of device registers, without those that only notify a queue.
    pub mmio_writes: u64,
    /// Accesses to input and output ports.
    pub ports: u64,
    /// All other exits.
    pub others: u64,
    /// The last 16 KiB that the guest wrote to its serial port.
    pub console: Vec<u8>,
}

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The guest reset or switched off its machine.
    Shutdown,
    /// The processor could not go on, or KVM failed. The text names the step.
    Failed(String),
}

impl Report {
    /// Returns the number of exits of all kinds.
    #[must_use]
    pub fn exits(&self) -> u64 {
        self.mmio_reads + self.mmio_writes + self.ports + self.others
    }
}

structures! {
    Report { mmio_reads, mmio_writes, ports, others, console }
    SystemCalls { vcpu, devices }
}

variants! {
    Boot { 0 => Kernel, 1 => Snapshot }
    Cause { 0 => Shutdown, 1 => Failed(step) }
    Request {
        0 => Prepare, 1 => Start { config, boot }, 2 => Pause, 3 => Resume, 4 => Snapshot,
        5 => Connect { port }, 6 => Report, 7 => Attach { disk },
    }
    Reply {
        0 => Prepared, 1 => Started { system_calls }, 2 => Stream { port }, 3 => Paused,
        4 => Resumed, 5 => Saved { memory_bytes }, 6 => Connected, 7 => Attached,
        8 => Report(report), 9 => Refused { message }, 10 => Ended { cause, report },
    }
}

impl Request {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        message(self)
    }

    /// Reads a request, whose configuration is within its limits.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let request = parse(bytes, "a request")?;
        if let Self::Start { config, .. } = &request {
            config.check()?;
        }
        Ok(request)
    }
}

impl Reply {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        message(self)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        parse(bytes, "a reply")
    }
}

fn message(value: &impl Wire) -> Vec<u8> {
    let mut out = Writer::default();
    value.write(out.u16(VERSION));
    out.finish()
}

fn parse<T: Wire>(bytes: &[u8], what: &'static str) -> Result<T, Error> {
    let mut from = Reader::new(bytes, what);
    if from.u16()? != VERSION {
        return Err(from.invalid("it is of another version"));
    }
    let value = T::read(&mut from)?;
    from.end()?;
    Ok(value)
}

/// The version of the messages. Both programs are built together; a mismatch is an error.
const VERSION: u16 = 3;
/// The largest part of the console's output that is kept.
pub(crate) const CONSOLE_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_survive_their_binary_form() {
        let report = Report { mmio_reads: 1, console: b"Linux".to_vec(), ..Report::default() };
        let failed = Cause::Failed("run a processor".into());
        let replies = [
            Reply::Started { system_calls: SystemCalls { vcpu: 11, devices: 20 } },
            Reply::Prepared,
            Reply::Stream { port: 1 },
            Reply::Paused,
            Reply::Resumed,
            Reply::Saved { memory_bytes: 1 << 40 },
            Reply::Connected,
            Reply::Attached,
            Reply::Report(report.clone()),
            Reply::Refused { message: "no".into() },
            Reply::Ended { cause: failed, report: report.clone() },
            Reply::Ended { cause: Cause::Shutdown, report },
        ];
        for reply in replies {
            assert_eq!(Reply::parse(&reply.bytes()).unwrap(), reply);
        }
        let config = Config::new(64 << 20);
        let requests = [
            Request::Start { config: config.clone(), boot: Boot::Kernel },
            Request::Start { config, boot: Boot::Snapshot },
            Request::Prepare,
            Request::Pause,
            Request::Resume,
            Request::Snapshot,
            Request::Connect { port: 5000 },
            Request::Report,
            Request::Attach { disk: 13 },
        ];
        for request in requests {
            assert_eq!(Request::parse(&request.bytes()).unwrap(), request);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let message = format!("x{}", "ä".repeat(4096));
        let reply = Reply::parse(&Reply::Refused { message }.bytes()).unwrap();
        let Reply::Refused { message } = reply else { panic!("{reply:?}") };
        assert_eq!(message.len(), 4095);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut all = VERSION.to_le_bytes().to_vec();
            all.extend(bytes);
            drop(Request::parse(&all));
            drop(Reply::parse(&all));
        }
    }
}
