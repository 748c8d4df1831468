//! The messages between a machine's process and the program that made it.

use crate::wire::{Reader, Writer};
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

    fn write(&self, out: &mut Writer) {
        out.u64(self.mmio_reads).u64(self.mmio_writes).u64(self.ports).u64(self.others);
        out.bytes(&self.console);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            mmio_reads: from.u64()?,
            mmio_writes: from.u64()?,
            ports: from.u64()?,
            others: from.u64()?,
            console: from.bytes(CONSOLE_BYTES_MAX)?.to_vec(),
        })
    }
}

impl Request {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(VERSION);
        match self {
            Self::Start { config, boot } => {
                out.u8(1).u8(u8::from(*boot == Boot::Snapshot));
                config.write(&mut out);
            }
            Self::Pause => {
                out.u8(2);
            }
            Self::Resume => {
                out.u8(3);
            }
            Self::Snapshot => {
                out.u8(4);
            }
            Self::Connect { port } => {
                out.u8(5).u32(*port);
            }
            Self::Report => {
                out.u8(6);
            }
            Self::Prepare => {
                out.u8(7);
            }
            Self::Attach { disk } => {
                out.u8(8).u8(*disk);
            }
        }
        out.finish()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Reader::new(bytes, "a request");
        if from.u16()? != VERSION {
            return Err(from.invalid("it is of another version"));
        }
        let request = match from.u8()? {
            1 => {
                let boot = if from.u8()? == 0 { Boot::Kernel } else { Boot::Snapshot };
                Self::Start { boot, config: Config::read(&mut from)? }
            }
            2 => Self::Pause,
            3 => Self::Resume,
            4 => Self::Snapshot,
            5 => Self::Connect { port: from.u32()? },
            6 => Self::Report,
            7 => Self::Prepare,
            8 => Self::Attach { disk: from.u8()? },
            _ => return Err(from.invalid("its kind is unknown")),
        };
        from.end()?;
        Ok(request)
    }
}

impl Reply {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(VERSION);
        match self {
            Self::Started { system_calls } => {
                out.u8(1).u16(system_calls.vcpu).u16(system_calls.devices);
            }
            Self::Stream { port } => {
                out.u8(2).u32(*port);
            }
            Self::Prepared => {
                out.u8(10);
            }
            Self::Paused => {
                out.u8(3);
            }
            Self::Resumed => {
                out.u8(4);
            }
            Self::Saved { memory_bytes } => {
                out.u8(5).u64(*memory_bytes);
            }
            Self::Connected => {
                out.u8(6);
            }
            Self::Attached => {
                out.u8(11);
            }
            Self::Report(report) => report.write(out.u8(7)),
            Self::Refused { message } => {
                out.u8(8).bytes(cut(message));
            }
            Self::Ended { cause, report } => {
                out.u8(9);
                match cause {
                    Cause::Shutdown => out.u8(0),
                    Cause::Failed(message) => out.u8(1).bytes(cut(message)),
                };
                report.write(&mut out);
            }
        }
        out.finish()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Reader::new(bytes, "a reply");
        if from.u16()? != VERSION {
            return Err(from.invalid("it is of another version"));
        }
        let reply = match from.u8()? {
            1 => {
                let system_calls = SystemCalls { vcpu: from.u16()?, devices: from.u16()? };
                Self::Started { system_calls }
            }
            2 => Self::Stream { port: from.u32()? },
            3 => Self::Paused,
            4 => Self::Resumed,
            5 => Self::Saved { memory_bytes: from.u64()? },
            6 => Self::Connected,
            7 => Self::Report(Report::read(&mut from)?),
            8 => Self::Refused { message: from.text(TEXT_BYTES_MAX)? },
            10 => Self::Prepared,
            11 => Self::Attached,
            9 => {
                let cause = match from.u8()? {
                    0 => Cause::Shutdown,
                    _ => Cause::Failed(from.text(TEXT_BYTES_MAX)?),
                };
                Self::Ended { cause, report: Report::read(&mut from)? }
            }
            _ => return Err(from.invalid("its kind is unknown")),
        };
        from.end()?;
        Ok(reply)
    }
}

/// Cuts a text at a boundary of characters.
fn cut(text: &str) -> &[u8] {
    let mut length = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    &text.as_bytes()[..length]
}

/// The version of the messages. Both programs are built together; a mismatch is an error.
const VERSION: u16 = 2;
const TEXT_BYTES_MAX: usize = 4096;
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
        let message = "ä".repeat(TEXT_BYTES_MAX);
        let reply = Reply::parse(&Reply::Refused { message }.bytes()).unwrap();
        let Reply::Refused { message } = reply else { panic!("{reply:?}") };
        assert_eq!(message.len(), TEXT_BYTES_MAX);
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
