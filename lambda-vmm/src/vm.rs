//! The handle of a machine in the program that made it.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::control::{Boot, Cause, Reply, Report, Request, SystemCalls};
use crate::link::Link;
use crate::{Config, During, Error};

/// The descriptors of a machine. The handles may be closed once the machine has been started.
#[derive(Debug)]
#[expect(missing_docs, reason = "Config describes the disks and the network device")]
pub struct Resources<'a> {
    /// The guest's memory: a memory file of the configured size ([`memory_file`]), or the memory
    /// file of a snapshot, open for reading.
    pub memory: BorrowedFd<'a>,
    pub boot: Source<'a>,
    /// Of the disks without slots.
    pub disks: &'a [BorrowedFd<'a>],
    pub network: Option<BorrowedFd<'a>>,
}

/// How a machine comes to life.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Source<'a> {
    /// An ELF kernel with a PVH note.
    Kernel(BorrowedFd<'a>),
    /// The state file of a snapshot. The memory is mapped privately, so that any number of
    /// machines can be restored from the same files.
    Snapshot(BorrowedFd<'a>),
}

/// What happens to a machine without being asked for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The guest has connected to a port of the host.
    Stream {
        /// The port.
        port: u32,
        /// The stream, in blocking mode.
        stream: UnixStream,
    },
    /// The machine has ended, and its process with it.
    Ended {
        /// The reason.
        cause: Cause,
        /// The last counts.
        report: Report,
    },
}

/// An empty machine, which waits in its process to be started. Making it is the slow part of a
/// start: a pool of them makes starts fast. Dropping it ends the process.
#[derive(Debug)]
pub struct Prepared(Vm);

/// A machine. Dropping the handle ends the machine's process.
#[derive(Debug)]
pub struct Vm {
    link: Link,
    events: VecDeque<Event>,
    /// The number of requests whose replies were not waited for. Replies come in order, so that the
    /// next ones are theirs.
    unanswered: usize,
    system_calls: SystemCalls,
}

impl Vm {
    /// Makes the two ends of a control socket: for [`Vm::prepare`], and for the machine's process,
    /// which has it as its standard input.
    ///
    /// # Errors
    ///
    /// The process has too many descriptors.
    pub fn control_sockets() -> Result<(OwnedFd, OwnedFd), Error> {
        Link::pair()
    }

    /// Makes an empty machine in the process that has the other end of `control`, for `time` at
    /// most. `kvm` is `/dev/kvm`, open for reading and writing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the machine cannot be made, with the step and the reason;
    /// [`Error::Closed`] if the process has ended; [`Error::TimedOut`].
    pub fn prepare(
        control: OwnedFd,
        kvm: BorrowedFd<'_>,
        time: Duration,
    ) -> Result<Prepared, Error> {
        let system_calls = SystemCalls { vcpu: 0, devices: 0 };
        let (link, events) = (Link::new(control), VecDeque::new());
        let mut vm = Self { link, events, unanswered: 0, system_calls };
        vm.ask(&Request::Prepare, &[kvm], time, &Reply::Prepared)?;
        Ok(Prepared(vm))
    }

    /// Returns how many system calls the threads of the machine's process may make.
    #[must_use]
    pub fn system_calls(&self) -> SystemCalls {
        self.system_calls
    }

    /// Returns the next event. Waits for it, for `time` at most. Calls of other methods keep at
    /// most 64 events for this one: further streams of the guest end.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]; [`Error::Closed`] if the machine's process has ended without a word.
    pub fn event(&mut self, time: Duration) -> Result<Event, Error> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        self.message(Instant::now() + time)?.map_err(unexpected)
    }

    /// Stops all processors. Devices are served further.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::TimedOut`].
    pub fn pause(&mut self, time: Duration) -> Result<(), Error> {
        self.ask(&Request::Pause, &[], time, &Reply::Paused)
    }

    /// Lets the processors run again.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::TimedOut`].
    pub fn resume(&mut self, time: Duration) -> Result<(), Error> {
        self.ask(&Request::Resume, &[], time, &Reply::Resumed)
    }

    /// Saves a paused machine to two empty files. Returns how many bytes of memory were written:
    /// pages of zeros are left out. The machine stays paused.
    ///
    /// The caller must see to it that the two files stay together, that disks do not change between
    /// saving and restoring, and that the guest gets new randomness and time after a restore.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the machine is not paused, or a file cannot be written (a full disk):
    /// the files are then to be removed. [`Error::Closed`], [`Error::TimedOut`].
    pub fn snapshot(
        &mut self,
        config: &Config,
        state: &File,
        memory: &File,
        time: Duration,
    ) -> Result<u64, Error> {
        memory.set_len(config.memory_bytes).during("set the length of the memory file")?;
        match self.answer(&Request::Snapshot, &[state.as_fd(), memory.as_fd()], time)? {
            Reply::Saved { memory_bytes } => Ok(memory_bytes),
            other => Err(unexpected(other)),
        }
    }

    /// Opens a stream to a port of the guest. If no program of the guest listens there, the stream
    /// ends at once.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if there are too many streams; [`Error::Closed`], [`Error::TimedOut`].
    pub fn connect(&mut self, port: u32, time: Duration) -> Result<UnixStream, Error> {
        let (ours, theirs) = UnixStream::pair().during("make a stream")?;
        theirs.set_nonblocking(true).during("make a stream")?;
        let request = Request::Connect { port };
        self.ask(&request, &[theirs.as_fd()], time, &Reply::Connected)?;
        Ok(ours)
    }

    /// Puts an image into the slot ([`Disk::Slot`](crate::Disk::Slot)) at this place among the
    /// disks, in place of what was there, or empties it. The guest is not told.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if that disk is no slot; [`Error::Closed`], [`Error::TimedOut`].
    pub fn attach(
        &mut self,
        disk: u8,
        image: Option<BorrowedFd<'_>>,
        time: Duration,
    ) -> Result<(), Error> {
        self.ask(&Request::Attach { disk }, image.as_slice(), time, &Reply::Attached)
    }

    /// Returns the counts of exits, and the end of the console's output.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::TimedOut`].
    pub fn report(&mut self, time: Duration) -> Result<Report, Error> {
        match self.answer(&Request::Report, &[], time)? {
            Reply::Report(report) => Ok(report),
            other => Err(unexpected(other)),
        }
    }

    fn ask(
        &mut self,
        request: &Request,
        files: &[BorrowedFd<'_>],
        time: Duration,
        expected: &Reply,
    ) -> Result<(), Error> {
        let reply = self.answer(request, files, time)?;
        if reply == *expected { Ok(()) } else { Err(unexpected(reply)) }
    }

    /// Sends a request and returns its answer. Events that come before it are kept.
    fn answer(
        &mut self,
        request: &Request,
        files: &[BorrowedFd<'_>],
        time: Duration,
    ) -> Result<Reply, Error> {
        let deadline = Instant::now() + time;
        self.link.send(&request.bytes(), files, true)?;
        loop {
            let message = self.message(deadline);
            self.unanswered += usize::from(matches!(message, Err(Error::TimedOut)));
            match message? {
                Ok(event) => {
                    let is_end = matches!(event, Event::Ended { .. });
                    // Streams beyond them end: the guest decides how many there are.
                    if is_end || self.events.len() < EVENTS_MAX {
                        self.events.push_back(event);
                    }
                    if is_end {
                        return Err(Error::Closed);
                    }
                }
                Err(refused @ Reply::Refused { .. }) => return Err(unexpected(refused)),
                Err(reply) => return Ok(reply),
            }
        }
    }

    /// Waits for the next message: an event, or else a reply.
    fn message(&mut self, deadline: Instant) -> Result<Result<Event, Reply>, Error> {
        loop {
            if let Some((bytes, files)) = self.link.receive()? {
                return Ok(match (Reply::parse(&bytes)?, files.into_iter().next()) {
                    (Reply::Stream { port }, Some(file)) => {
                        let stream = UnixStream::from(file);
                        // The other end does not block. This one belongs to the caller.
                        stream.set_nonblocking(false).during("take a stream over")?;
                        Ok(Event::Stream { port, stream })
                    }
                    (Reply::Ended { cause, report }, _) => Ok(Event::Ended { cause, report }),
                    _ if self.unanswered > 0 => {
                        self.unanswered -= 1;
                        continue;
                    }
                    (reply, _) => Err(reply),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.link.wait(left)? {
                return Err(Error::TimedOut);
            }
        }
    }
}

impl Prepared {
    /// Completes the machine and waits until it runs, for `time` at most.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the configuration is out of its limits; [`Error::Refused`] if the
    /// machine cannot be completed, with the step and the reason; [`Error::Closed`] if the process
    /// has ended; [`Error::TimedOut`].
    pub fn start(
        self,
        config: &Config,
        resources: &Resources<'_>,
        time: Duration,
    ) -> Result<Vm, Error> {
        config.check()?;
        let (boot, image) = match resources.boot {
            Source::Kernel(file) => (Boot::Kernel, file),
            Source::Snapshot(file) => (Boot::Snapshot, file),
        };
        let mut files = vec![resources.memory, image];
        files.extend(resources.disks);
        files.extend(resources.network);
        let request = Request::Start { config: config.clone(), boot };
        let mut vm = self.0;
        match vm.answer(&request, &files, time)? {
            Reply::Started { system_calls } => Ok(Vm { system_calls, ..vm }),
            other => Err(unexpected(other)),
        }
    }
}

impl AsFd for Vm {
    /// Returns the control socket, which is readable when there is an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// Streams of the guest that are kept for [`Vm::event`].
const EVENTS_MAX: usize = 64;

/// Makes the memory file of a new machine.
///
/// # Errors
///
/// The process has too many descriptors.
pub fn memory_file(config: &Config) -> Result<File, Error> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let file = nix::sys::memfd::memfd_create(c"guest", flags);
    let file = File::from(file.during("make the guest's memory file")?);
    file.set_len(config.memory_bytes).during("make the guest's memory file")?;
    Ok(file)
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Refused { message } => Error::Refused { message },
        other => Error::invalid("a reply", format!("{other:?} was not asked for")),
    }
}
