//! The messages of both sides.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Fault;
use super::frame::HEADER_BYTES_MAX;
use super::wire::{Reader, Wire, bytes_of, structures, value_of, variants};
use crate::{
    Capability, Error, Event, Exit, Finished, InitFailure, InitReport, Isolation, Limits,
    LiveUsage, LogLine, Network, Outcome, Pressure, Root, ShutdownReason, Stream, TimeLimits,
};

/// The version of this protocol. Both sides must have the same.
pub const VERSION: u32 = 3;

/// The first bytes of the header of a hello.
const MAGIC: &[u8; 16] = b"lambda-sandbox/r";

/// A message in its binary form.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Vec<u8>,
    pub(super) body: Bytes,
}

impl Message {
    pub(super) fn new(value: &impl Wire, body: Bytes) -> Self {
        Self { header: bytes_of(value), body }
    }

    /// Returns the first message of each side. Later versions keep its first 20 bytes.
    pub(super) fn hello() -> Self {
        let mut header = MAGIC.to_vec();
        VERSION.write(&mut header);
        Self { header, body: Bytes::new() }
    }

    /// Returns the memory that the message takes in a queue.
    pub(super) fn cost(&self) -> usize {
        self.header.len() + self.body.len() + size_of::<Self>()
    }

    /// Checks that the peer takes the message.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let bytes = self.header.len();
        if bytes > HEADER_BYTES_MAX || u32::try_from(self.body.len()).is_err() {
            return Err(Fault::TooLong { what: "a header", bytes, max: HEADER_BYTES_MAX });
        }
        Ok(())
    }
}

/// Checks the first message of the other side.
pub(super) fn check_hello(header: &[u8]) -> Result<(), Fault> {
    let Some(rest) = header.strip_prefix(MAGIC) else { return Err(Fault::NotHello) };
    let theirs = u32::read(&mut Reader::new(rest))?;
    if theirs == VERSION { Ok(()) } else { Err(Fault::Version { ours: VERSION, theirs }) }
}

/// What a client asks for. Each connection serves a description, a sweep, or one sandbox.
#[derive(Debug)]
pub(super) enum Request {
    Describe,
    Sweep,
    /// The body is a [`Specification`].
    Create,
    SetInitLimit(Duration),
    Init,
    /// The body is the payload.
    Invoke(Call),
    Settle,
    Freeze,
    Abandon(ShutdownReason),
    Reset(ShutdownReason),
    Run,
    Shutdown(ShutdownReason),
    Destroy,
    Kill,
    /// Asks for events and usage from now on.
    Watch,
    /// The body is a [`Program`].
    Exec(u32),
    EndExec(u32),
    /// The body is a part of the standard input of the sandbox's program (0) or of an [`Exec`].
    /// Without a body it is the end.
    ///
    /// [`Exec`]: Request::Exec
    Input(u32),
    /// A part of a streamed answer was taken.
    Taken,
    /// Keep an idle sandbox when this connection ends.
    Park,
    /// Wake the machine, and give out the sandbox that is parked.
    Adopt(Awakening),
    /// Let a restored sandbox go on.
    Restore,
}

/// What a restored machine is told before any program in it runs.
#[derive(Debug)]
pub(super) struct Awakening {
    /// Random bytes.
    pub(super) seed: Bytes,
    pub(super) now: SystemTime,
    pub(super) wants_lines: bool,
    pub(super) takes_bytes: bool,
}

/// What a server answers and tells.
#[derive(Debug)]
pub(super) enum Reply {
    Description {
        isolation: Isolation,
        capabilities: BTreeSet<Capability>,
    },
    /// The body is the names of what was removed.
    Swept(Result<(), Error>),
    Created(Result<Found, Error>),
    Done {
        done: Done,
        status: Status,
    },
    Line(LogLine),
    /// The body is output.
    Output(Stream),
    /// So many bytes of output were dropped, because the connection was slower than the program.
    Lost(u64),
    /// A streamed answer has begun.
    Begin {
        content_type: Option<String>,
    },
    /// The body is a part of a streamed answer.
    Data,
    /// The next part of a standard input can be taken.
    WantInput(u32),
    Live(LiveUsage),
    Event(Event),
    /// The body is both outputs, one after the other.
    Executed {
        id: u32,
        result: Result<Ended, Error>,
    },
}

/// The end of a call.
#[derive(Debug)]
pub(super) enum Done {
    Init(Result<InitReport, InitFailure>),
    /// The body of the answer is the message's.
    Invoke(Result<Outcome, Error>),
    Settle(Result<(), Error>),
    Freeze(Result<(), Error>),
    Reset(Result<(), Error>),
    Run(Result<Finished, Error>),
    Shutdown,
    Destroy(Result<(), Error>),
    Park(Result<(), Error>),
}

/// What is known of a new sandbox.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) has_handle: bool,
    pub(super) usage: Option<LiveUsage>,
    pub(super) status: Status,
}

/// What is known of a sandbox after each call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Status {
    pub(super) can_reset: bool,
    pub(super) pressure: Option<Pressure>,
}

/// The part of a [`SandboxSpec`](crate::SandboxSpec) that a client sends to the server. The log and
/// the standard input stay with the client.
#[derive(Debug)]
pub(super) struct Specification {
    pub(super) function: String,
    pub(super) root: Root,
    pub(super) command: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) working_directory: PathBuf,
    pub(super) network: Network,
    pub(super) limits: Limits,
    pub(super) times: TimeLimits,
    pub(super) has_stdin: bool,
    pub(super) wants_lines: bool,
    pub(super) takes_bytes: bool,
}

/// An invocation without its payload.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request_id: String,
    pub(super) timeout: Duration,
    pub(super) deadline: SystemTime,
    pub(super) invoked_function_arn: String,
    pub(super) trace_id: Option<String>,
    pub(super) client_context: Option<String>,
    pub(super) cognito_identity: Option<String>,
    pub(super) is_streamed: bool,
}

/// A program to run in a living sandbox.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) command: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) working_directory: PathBuf,
    pub(super) has_stdin: bool,
}

/// The end of such a program. `stdout_bytes` of the outputs are its standard output.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) exit: Exit,
    pub(super) stdout_bytes: usize,
    pub(super) truncated: bool,
}

structures! {
    Awakening { seed, now, wants_lines, takes_bytes }
    Found { has_handle, usage, status }
    Status { can_reset, pressure }
    Specification {
        function, root, command, environment, working_directory, network, limits, times, has_stdin,
        wants_lines, takes_bytes,
    }
    Call {
        request_id, timeout, deadline, invoked_function_arn, trace_id, client_context,
        cognito_identity, is_streamed,
    }
    Program { command, environment, working_directory, has_stdin }
    Ended { exit, stdout_bytes, truncated }
}

variants! {
    Request {
        0 => Describe, 1 => Sweep, 2 => Create, 3 => SetInitLimit(limit), 4 => Init,
        5 => Invoke(call), 6 => Settle, 7 => Abandon(reason), 8 => Reset(reason), 9 => Run,
        10 => Shutdown(reason), 11 => Destroy, 12 => Kill, 13 => Watch, 14 => Exec(id),
        15 => EndExec(id), 16 => Input(id), 17 => Taken, 18 => Freeze, 19 => Park,
        20 => Adopt(awakening), 21 => Restore,
    }
    Reply {
        0 => Description { isolation, capabilities }, 1 => Swept(result), 2 => Created(result),
        3 => Done { done, status }, 4 => Line(line), 5 => Output(stream), 6 => Lost(bytes),
        7 => Begin { content_type }, 8 => Data, 9 => WantInput(id), 10 => Live(usage),
        11 => Event(event), 12 => Executed { id, result },
    }
    Done {
        0 => Init(result), 1 => Invoke(result), 2 => Settle(result), 3 => Reset(result),
        4 => Run(result), 5 => Shutdown, 6 => Destroy(result), 7 => Freeze(result),
        8 => Park(result),
    }
}

/// Reads a request or a reply from its header.
pub(super) fn parse<T: Wire>(header: &[u8]) -> Result<T, Fault> {
    value_of(header)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use proptest::prelude::*;

    use super::*;
    use crate::{Answer, EndedBy, FunctionError, Interface, Response, SandboxSpec, Usage};

    /// Checks that a value has the same form after it was read from that form.
    fn check<T: Wire + std::fmt::Debug>(value: &T) -> T {
        let bytes = bytes_of(value);
        let read: T = value_of(&bytes).expect("read");
        assert_eq!(bytes_of(&read), bytes, "{value:?}");
        assert_eq!(format!("{read:?}"), format!("{value:?}"));
        for length in 0..bytes.len() {
            assert!(value_of::<T>(&bytes[..length]).is_err(), "{length} of {value:?}");
        }
        assert!(value_of::<T>(&[&bytes[..], b"x"].concat()).is_err(), "{value:?}");
        read
    }

    #[test]
    fn messages_survive_their_form() {
        let odd = OsString::from_vec(vec![b'a', 0xff, b'=']);
        let root = Root::of_layers(["/a", "/b"]).with_bind("/from", "/to");
        let mut spec = SandboxSpec::new(root, [odd.clone()]);
        spec.limits.block_io =
            Some(crate::BlockIo { read_bytes_per_second: Some(5), ..Default::default() });
        spec.limits.processors = Some(BTreeSet::from([0, 9]));
        spec.limits.isolation_min = vec![crate::Defence::Kernel];
        check(&Specification {
            function: "ä".into(),
            root: spec.root,
            command: spec.command,
            environment: vec![(odd, "value".into())],
            working_directory: spec.working_directory,
            network: Network::Interface(Interface {
                name: "veth0".into(),
                address: "fe80::1".parse().expect("an address"),
                prefix_length: 64,
                gateway: Some("10.0.0.1".parse().expect("an address")),
            }),
            limits: spec.limits,
            times: spec.times,
            has_stdin: true,
            wants_lines: false,
            takes_bytes: true,
        });
        let call = Call {
            request_id: "id".into(),
            timeout: Duration::from_millis(1500),
            deadline: SystemTime::UNIX_EPOCH + Duration::new(5, 7),
            invoked_function_arn: String::new(),
            trace_id: None,
            client_context: Some("{}".into()),
            cognito_identity: None,
            is_streamed: true,
        };
        check(&Request::Invoke(call));
        check(&Request::Shutdown(ShutdownReason::Failure));
        let now = SystemTime::UNIX_EPOCH + Duration::new(9, 1);
        let seed = Bytes::from_static(&[7; 64]);
        check(&Request::Adopt(Awakening { seed, now, wants_lines: true, takes_bytes: false }));
        let usage = Usage { cpu_time: Some(Duration::from_nanos(3)), ..Usage::default() };
        let response = Response {
            body: Bytes::new(),
            content_type: Some("text/plain".into()),
            streamed: true,
        };
        let error = FunctionError { error_type: "Unhandled".into(), body: "{}".into() };
        let killed = Finished::new(Exit::Signal(9), EndedBy::Host, usage);
        let unavailable = Error::Unavailable { what: "a thing", why: "none".into(), remedy: "buy" };
        let no_file = std::io::Error::from_raw_os_error(2);
        for done in [
            Done::Init(Ok(InitReport::default())),
            Done::Init(Err(InitFailure::Reported(error.clone()))),
            Done::Init(Err(InitFailure::Failed(Error::failed("opening", "/file", no_file)))),
            Done::Invoke(Ok(Outcome { answer: Answer::Success(response), usage })),
            Done::Invoke(Ok(Outcome { answer: Answer::FunctionError(error), usage })),
            Done::Invoke(Ok(Outcome { answer: Answer::Exited(Exit::Status(7)), usage })),
            Done::Settle(Err(Error::Ended)),
            Done::Reset(Err(unavailable)),
            Done::Run(Ok(killed)),
            Done::Run(Err(Error::Exhausted { what: "slots", max: 3 })),
            Done::Shutdown,
            Done::Park(Ok(())),
            Done::Destroy(Err(Error::invalid("a setting", "1", "two"))),
        ] {
            check(&Reply::Done { done, status: Status::default() });
        }
    }

    #[test]
    fn a_hello_of_another_version_or_protocol_is_named() {
        let hello = Message::hello().header;
        assert!(check_hello(&hello).is_ok());
        let mut newer = hello.clone();
        newer[16] = 9;
        newer.extend(b"more that only version 9 knows");
        assert_eq!(check_hello(&newer), Err(Fault::Version { ours: VERSION, theirs: 9 }));
        assert_eq!(check_hello(b"GET / HTTP/1.1"), Err(Fault::NotHello));
        assert!(check_hello(&hello[..18]).is_err());
    }

    #[test]
    fn counts_beyond_the_bytes_allocate_nothing() {
        // Four thousand million words.
        let huge = [u32::MAX.to_le_bytes().as_slice(), &[0; 20]].concat();
        let refused = value_of::<Vec<OsString>>(&huge).expect_err("too many");
        assert_eq!(refused, Fault::Garbled("a count exceeds the bytes"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse::<Request>(&bytes));
            drop(parse::<Reply>(&bytes));
            drop(value_of::<Specification>(&bytes));
            drop(value_of::<Program>(&bytes));
        }
    }
}
