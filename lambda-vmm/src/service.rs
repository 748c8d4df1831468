//! The process of one machine: takes the configuration and the descriptors from its control socket,
//! makes the machine, restricts itself, and serves devices and requests until the machine ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::sync::{Arc, mpsc::Receiver};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::Place;
use crate::control::{Cause, Reply, Request, SystemCalls};
use crate::devices::{DiskDevice, Offer, Vsock};
use crate::filter::{self, Thread};
use crate::link::Link;
use crate::machine::{Blank, Machine, VSOCK};
use crate::poll::{Readiness, Source};
use crate::{During, Error, process};

/// Runs the machine that the first message of the control socket describes. The calling process
/// must have no other threads: it is restricted for ever, and ends with the machine.
///
/// # Errors
///
/// The control socket is closed before the machine runs, or the machine cannot be made. The other
/// end of the socket has been told the reason.
pub fn serve(control: OwnedFd) -> Result<Infallible, Error> {
    process::prepare()?;
    let link = Arc::new(Link::new(control));
    match start(&link) {
        Ok(service) => {
            let cause = service.run().unwrap_or_else(|error| Cause::Failed(error.chain()));
            service.end(cause)
        }
        Err(error) => {
            // The other end may be closed: this process ends in any case.
            drop(link.send(&Reply::Refused { message: error.chain() }.bytes(), &[], true));
            Err(error)
        }
    }
}

#[derive(Debug)]
struct Service {
    machine: Machine,
    link: Arc<Link>,
    readiness: Readiness,
}

/// Hands the guest's streams to the other end of the control socket.
#[derive(Debug)]
struct Streams(Arc<Link>);

fn start(link: &Arc<Link>) -> Result<Service, Error> {
    let (Request::Prepare, files) = next(link)? else {
        return Err(Error::invalid("the first request", "it does not prepare a machine"));
    };
    let Ok([kvm]) = <[OwnedFd; 1]>::try_from(files) else {
        return Err(Error::invalid("the first request", "it takes the descriptor of /dev/kvm"));
    };
    let blank = Blank::new(kvm)?;
    link.send(&Reply::Prepared.bytes(), &[], true)?;
    let (Request::Start { config, boot }, files) = next(link)? else {
        return Err(Error::invalid("the second request", "it does not start a machine"));
    };
    let readiness = Readiness::new()?;
    let offers = Box::new(Streams(Arc::clone(link)));
    let machine = Machine::new(blank, config, boot, files, &readiness, offers)?;
    readiness.add(link.as_fd(), Source::Control)?;
    let vcpu = spawn(&machine)?;
    // All threads exist and all descriptors are open. Nothing of the guest has run yet.
    let devices = filter::apply(Thread::Devices)?;
    let service = Service { machine, link: Arc::clone(link), readiness };
    if boot == crate::control::Boot::Snapshot {
        service.machine.resume_devices();
    }
    service.reply(&Reply::Started { system_calls: SystemCalls { vcpu, devices } })?;
    service.machine.gate.open();
    Ok(service)
}

/// Waits for the next request, for ever: a prepared machine may wait long in a pool.
fn next(link: &Link) -> Result<(Request, Vec<OwnedFd>), Error> {
    loop {
        link.wait(Duration::from_secs(3600))?;
        if let Some((message, files)) = link.receive()? {
            return Ok((Request::parse(&message)?, files));
        }
    }
}

/// Starts the threads of the processors, and waits until each has restricted itself. Returns how
/// many system calls each may make.
fn spawn(machine: &Machine) -> Result<u16, Error> {
    let (restricted, results): (_, Receiver<Result<u16, Error>>) = mpsc::channel();
    for (vcpu, id) in machine.vcpus.iter().zip(0..) {
        let (vcpu, bus) = (Arc::clone(vcpu), Arc::clone(&machine.bus));
        let (gate, restricted) = (Arc::clone(&machine.gate), restricted.clone());
        let thread = thread::Builder::new().name(format!("vcpu {id}")).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || {
            vcpu.enter_thread();
            let filter = filter::apply(Thread::Vcpu);
            let is_restricted = filter.is_ok();
            // The receiver waits for as many results as there are threads.
            drop(restricted.send(filter));
            drop(restricted);
            if is_restricted {
                vcpu.run(&bus, &gate);
            }
        });
        // The thread runs as long as the process.
        drop(thread.during("start a processor's thread")?);
    }
    drop(restricted);
    let mut count = 0;
    for result in results {
        count = result?;
    }
    Ok(count)
}

impl Service {
    /// Serves until the machine ends. Returns why.
    fn run(&self) -> Result<Cause, Error> {
        let mut ready = Vec::new();
        let mut left: VecDeque<Source> = VecDeque::new();
        loop {
            self.readiness.wait(&mut ready, left.is_empty())?;
            // Work that is left takes turns with what is new.
            left.extend(ready.drain(..));
            for _ in 0..left.len() {
                let Some(source) = left.pop_front() else { break };
                if self.serve(source)? && !left.contains(&source) {
                    left.push_back(source);
                }
            }
            if let Some(cause) = self.machine.gate.ended() {
                return Ok(cause);
            }
        }
    }

    /// Does what a source has become ready for. Returns whether work is left.
    fn serve(&self, source: Source) -> Result<bool, Error> {
        let places = self.machine.bus.places();
        let place = |device: u8| places.get(usize::from(device));
        match source {
            Source::Control => return self.control().map(|()| false),
            Source::Attention => {
                // The counter may have been read already.
                drop(self.machine.attention.read());
                places.iter().for_each(|place| place.transport().settle());
            }
            Source::Queue { device, queue } => {
                // Work that is left comes without a new notification.
                let kick = place(device).and_then(|it| it.kicks().get(usize::from(queue)));
                drop(kick.map(EventFd::read));
                return Ok(place(device).is_some_and(|it| it.transport().notify(queue)));
            }
            Source::Device { device, token } => {
                return Ok(place(device).is_some_and(|it| it.transport().ready(token)));
            }
        }
        Ok(false)
    }

    /// Handles a request. A request that cannot be carried out is answered, and the machine goes
    /// on.
    fn control(&self) -> Result<(), Error> {
        let Some((message, files)) = self.link.receive()? else { return Ok(()) };
        let request = Request::parse(&message);
        let reply = request.and_then(|request| self.carry_out(request, files));
        self.reply(&reply.unwrap_or_else(|error| Reply::Refused { message: error.chain() }))
    }

    fn carry_out(&self, request: Request, files: Vec<OwnedFd>) -> Result<Reply, Error> {
        let machine = &self.machine;
        let refused = |why: &str| Err(Error::invalid("a request", why));
        Ok(match request {
            Request::Prepare | Request::Start { .. } => {
                return refused("the machine has been started");
            }
            Request::Pause => {
                if !machine.gate.close(&machine.vcpus) {
                    return refused("a processor did not stop");
                }
                Reply::Paused
            }
            Request::Resume => {
                machine.gate.open();
                Reply::Resumed
            }
            Request::Snapshot => {
                if !machine.gate.is_closed() {
                    return refused("the machine is not paused");
                }
                let Ok([state, memory]) = <[OwnedFd; 2]>::try_from(files) else {
                    return refused("a snapshot takes two files");
                };
                let memory_bytes = machine.save(&File::from(state), &File::from(memory))?;
                Reply::Saved { memory_bytes }
            }
            Request::Connect { port } => {
                let Ok([socket]) = <[OwnedFd; 1]>::try_from(files) else {
                    return refused("a connection takes one socket");
                };
                let place = machine.bus.places().get(usize::from(VSOCK));
                let connected = place.map(Place::transport).and_then(|mut transport| {
                    let token = transport.device_mut::<Vsock>()?.connect(port, socket)?;
                    Some(transport.ready(token))
                });
                if connected.is_none() {
                    return refused("there are too many streams");
                }
                Reply::Connected
            }
            Request::Report => Reply::Report(machine.bus.report()),
            Request::Attach { disk } => {
                let mut files = files.into_iter();
                let (image, None) = (files.next(), files.next()) else {
                    return refused("a slot takes one image");
                };
                let attached =
                    machine.disk(disk).map(Place::transport).and_then(|mut transport| {
                        Some(transport.device_mut::<DiskDevice>()?.attach(image.map(File::from)))
                    });
                if attached != Some(true) {
                    return refused("there is no such slot");
                }
                Reply::Attached
            }
        })
    }

    fn reply(&self, reply: &Reply) -> Result<(), Error> {
        self.link.send(&reply.bytes(), &[], true)
    }

    /// Tells the other end why the machine has ended, and ends the process.
    fn end(&self, cause: Cause) -> ! {
        let is_shutdown = cause == Cause::Shutdown;
        let reply = Reply::Ended { cause, report: self.machine.bus.report() };
        // The other end may be closed.
        drop(self.reply(&reply));
        process::exit(if is_shutdown { 0 } else { 1 })
    }
}

impl Offer for Streams {
    fn offer(&mut self, port: u32) -> Option<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, flags);
        let (ours, theirs) = pair.ok()?;
        // A program that does not take its streams gets no more.
        let sent = self.0.send(&Reply::Stream { port }.bytes(), &[theirs.as_fd()], false);
        sent.is_ok().then_some(ours)
    }
}

/// Large enough for the exits of a processor, which are served without recursion.
const STACK_BYTES: usize = 128 * 1024;
