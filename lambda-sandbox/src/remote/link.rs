//! The client's end of a connection: its tasks, and what they share with the sandbox's handles.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, ReadHalf};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::connect::{Connect, Duplex};
use super::message::{self, Ended, Message, Reply, Request, Status};
use super::outbox::Outbox;
use super::{Fault, frame};
use crate::log::LINE_BYTES_MAX;
use crate::{EVENTS_KEPT, Error, Event, LiveUsage, LogSink, NoLog, OUTPUT_BYTES_KEPT, StreamPart};

/// The client's end of a connection.
pub(super) struct Link {
    pub(super) outbox: Outbox,
    pub(super) patience: Duration,
    pub(super) killed: watch::Sender<bool>,
    /// The sandbox that the connection has, once it is known.
    owner: OnceLock<Owner>,
    next_exec: AtomicU32,
    state: Mutex<State>,
}

/// The client's part of a sandbox's specification.
struct Owner {
    log: Arc<dyn LogSink>,
    payload_bytes_max: usize,
}

/// The end of a program beside the sandbox's own, and its outputs.
type Executed = (Result<Ended, Error>, Bytes);

/// What the other side has said.
#[derive(Default)]
pub(super) struct State {
    /// Why the connection has ended, if it has.
    pub(super) fault: Option<Fault>,
    pub(super) status: Status,
    pub(super) usage: Option<LiveUsage>,
    /// Who waits for the end of the call.
    pub(super) call: Option<oneshot::Sender<(Reply, Bytes)>>,
    execs: BTreeMap<u32, oneshot::Sender<Executed>>,
    /// Where the parts of a streamed answer go.
    pub(super) parts: Option<mpsc::Sender<StreamPart>>,
    /// The standard inputs, which are asked for parts.
    inputs: BTreeMap<u32, Arc<Notify>>,
    events: Option<broadcast::Sender<Event>>,
    tasks: Vec<AbortHandle>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("fault", &self.state().fault).finish_non_exhaustive()
    }
}

impl Link {
    /// Opens a connection: both sides have said hello when it returns.
    pub(super) async fn open(
        connect: &dyn Connect,
        patience: Duration,
    ) -> Result<Arc<Self>, Fault> {
        let hello = async {
            let mut stream =
                connect.connect().await.map_err(|error| Fault::Stream(error.kind()))?;
            let ours = Message::hello();
            frame::write(&mut stream, &ours.header, &ours.body).await.map_err(Fault::of)?;
            stream.flush().await.map_err(Fault::of)?;
            let theirs = frame::read(&mut stream, || 0).await?.ok_or(Fault::Closed)?;
            message::check_hello(&theirs.0)?;
            Ok(stream)
        };
        let hello = tokio::time::timeout(patience, hello).await;
        let stream = hello.map_err(|_elapsed| Fault::NoHello(patience))??;
        let events = Some(broadcast::channel(EVENTS_KEPT).0);
        let link = Arc::new(Self {
            outbox: Outbox::default(),
            patience,
            killed: watch::channel(false).0,
            owner: OnceLock::new(),
            next_exec: AtomicU32::new(1),
            state: Mutex::new(State { events, ..State::default() }),
        });
        let (reader, writer) = tokio::io::split(stream);
        let writing = Arc::clone(&link);
        link.spawn(async move {
            if let Err(fault) = writing.outbox.write(writer).await {
                writing.end(fault);
            }
        });
        let reading = Arc::clone(&link);
        link.spawn(async move {
            let Err(fault) = reading.read(reader).await;
            reading.end(fault);
        });
        Ok(link)
    }

    /// Sets the receiver of the sandbox's output and the most bytes of an answer. Called once,
    /// before the sandbox is asked for.
    pub(super) fn serve(&self, log: Arc<dyn LogSink>, payload_bytes_max: usize) {
        // The first counts.
        drop(self.owner.set(Owner { log, payload_bytes_max }));
    }

    fn log(&self) -> &dyn LogSink {
        self.owner.get().map_or(&NoLog, |owner| &*owner.log)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task until the connection ends.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task).abort_handle();
        let mut state = self.state();
        if state.fault.is_some() {
            task.abort();
        }
        state.tasks.retain(|task| !task.is_finished());
        state.tasks.push(task);
    }

    /// Sends a request. A connection that has ended drops it.
    pub(super) fn send(&self, request: &Request, body: Bytes) {
        self.outbox.push(Message::new(request, body));
    }

    /// Ends the connection, and with it the sandbox. The first reason counts.
    pub(super) fn end(&self, fault: Fault) {
        self.outbox.close();
        let mut state = self.state();
        state.fault.get_or_insert(fault);
        // Those who wait see that the senders are gone.
        (state.call, state.parts, state.events) = (None, None, None);
        state.execs.clear();
        state.tasks.iter().for_each(AbortHandle::abort);
    }

    /// Returns why the connection has ended.
    pub(super) fn fault(&self) -> Fault {
        self.state().fault.clone().unwrap_or(Fault::Closed)
    }

    /// Takes a number for a program beside the sandbox's own, and the receiver of its end.
    pub(super) fn add_exec(&self) -> (u32, oneshot::Receiver<Executed>) {
        let id = self.next_exec.fetch_add(1, Ordering::Relaxed).max(1);
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        // After the connection's end the sender is dropped, which the receiver sees.
        if state.fault.is_none() {
            state.execs.insert(id, sender);
        }
        (id, receiver)
    }

    /// Forgets a program beside the sandbox's own.
    pub(super) fn remove_exec(&self, id: u32) {
        let mut state = self.state();
        drop(state.execs.remove(&id));
        drop(state.inputs.remove(&id));
    }

    /// Registers a standard input, which is notified when a part is asked for.
    pub(super) fn add_input(&self, id: u32) -> Arc<Notify> {
        let asked = Arc::new(Notify::new());
        self.state().inputs.insert(id, Arc::clone(&asked));
        asked
    }

    /// Returns a receiver of the events from now on.
    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        match &self.state().events {
            Some(events) => events.subscribe(),
            // A sender that is gone ends the events at once.
            None => broadcast::channel(1).1,
        }
    }

    async fn read(
        &self,
        mut stream: ReadHalf<Box<dyn Duplex>>,
    ) -> Result<std::convert::Infallible, Fault> {
        loop {
            let message = frame::read(&mut stream, || self.body_bytes_max()).await?;
            let (header, body) = message.ok_or(Fault::Closed)?;
            self.hear(message::parse(&header)?, body)?;
        }
    }

    /// Returns how long a body may be now.
    fn body_bytes_max(&self) -> usize {
        // Output comes in parts of at most one frame, and the outputs of other programs at once.
        let payload = self.owner.get().map_or(0, |owner| owner.payload_bytes_max);
        let least = payload.max(frame::BODY_BYTES_MAX);
        if self.state().execs.is_empty() { least } else { least.max(2 * OUTPUT_BYTES_KEPT) }
    }

    fn hear(&self, reply: Reply, body: Bytes) -> Result<(), Fault> {
        match reply {
            Reply::Description { .. }
            | Reply::Swept(_)
            | Reply::Created(_)
            | Reply::Done { .. } => {
                self.hear_end(reply, body)?;
            }
            Reply::Line(line) => {
                if line.text.len() > LINE_BYTES_MAX {
                    return Err(Fault::Garbled("a line of output is too long"));
                }
                self.log().line(line);
            }
            Reply::Output(stream) => self.log().bytes(stream, &body),
            Reply::Lost(bytes) => self.log().lost(bytes),
            Reply::Begin { content_type } => self.hear_part(StreamPart::Begin { content_type })?,
            Reply::Data => self.hear_part(StreamPart::Data(body))?,
            Reply::WantInput(id) => match self.state().inputs.get(&id) {
                Some(asked) => asked.notify_one(),
                // The program that reads it was dropped.
                None if id > 0 => {}
                None => return Err(Fault::Unexpected("a request for an input")),
            },
            Reply::Live(usage) => self.state().usage = Some(usage),
            Reply::Event(event) => {
                if let Some(events) = &self.state().events {
                    // Nobody may listen.
                    let _listeners = events.send(event).is_ok();
                }
            }
            Reply::Executed { id, result } => {
                let waiting = self.state().execs.remove(&id);
                // The caller may have gone.
                drop(waiting.map(|waiting| waiting.send((result, body))));
            }
        }
        Ok(())
    }

    fn hear_end(&self, reply: Reply, body: Bytes) -> Result<(), Fault> {
        let mut state = self.state();
        match &reply {
            Reply::Done { status, .. } => state.status = *status,
            Reply::Created(Ok(found)) => (state.status, state.usage) = (found.status, found.usage),
            _ => {}
        }
        let call = state.call.take().ok_or(Fault::Unexpected("the end of a call"))?;
        state.parts = None;
        // A caller that has gone ends the connection.
        drop(call.send((reply, body)));
        Ok(())
    }

    fn hear_part(&self, part: StreamPart) -> Result<(), Fault> {
        match &self.state().parts {
            Some(parts) if parts.try_send(part).is_ok() => Ok(()),
            _ => Err(Fault::Unexpected("a part of an answer")),
        }
    }
}
