//! What the fuzz targets call. It exists in their builds alone.
#![expect(clippy::unwrap_used, reason = "a fault of the target itself ends it")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use crate::config::{Network, Packets};
use crate::control::{Reply, Request};
use crate::devices::{Balloon, Device, DiskDevice, Entropy, NetworkDevice, Offer, Vsock};
use crate::memory::Mapping;
use crate::poll::Readiness;
use crate::testing::steps::{Step, carry_out};
use crate::testing::streams::act;
use crate::testing::{Driver, memory_file};
use crate::wire::{Reader, Wire};
use crate::{Config, mmio, snapshot};

/// Steps of a driver with one of the devices, by the first byte.
pub fn device(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut driver = Driver::new(make(*kind));
    for step in Step::all_of(bytes) {
        carry_out(&mut driver, step);
    }
    driver.set_up();
    assert_eq!(driver.read(0x70), 15, "it serves a good driver");
}

/// A message of either end of a control socket.
pub fn message(bytes: &[u8]) {
    if let Ok(request) = Request::parse(bytes) {
        assert_eq!(Request::parse(&request.bytes()).unwrap(), request);
    }
    if let Ok(reply) = Reply::parse(bytes) {
        assert_eq!(Reply::parse(&reply.bytes()).unwrap(), reply);
    }
}

/// Packets of a guest, and acts of the host.
pub fn streams(bytes: &[u8]) {
    act(bytes);
}

/// The state of a device by the first byte, behind a configuration, in a file with a good checksum.
/// A device that takes its state goes on with the memory that the rest of the bytes is.
pub fn snapshot(bytes: &[u8]) {
    drop(snapshot::unseal(bytes));
    drop(snapshot::Saved::read(&mut Reader::new(bytes, "the snapshot")));
    let Some((kind, bytes)) = bytes.split_first() else { return };
    assert_eq!(snapshot::unseal(&snapshot::seal(bytes)).unwrap(), bytes);
    let mut from = Reader::new(bytes, "the snapshot");
    drop(Config::read(&mut from));
    let mut driver = Driver::new(make(*kind));
    let mut from = Reader::new(bytes, "the snapshot");
    let restored = mmio::State::read(&mut from).and_then(|it| driver.transport.restore(it));
    if restored.is_ok() {
        driver.transport.resume();
        for queue in 0..driver.transport.queue_count() {
            driver.transport.notify(queue);
        }
    }
    driver.set_up();
    assert_eq!(driver.read(0x70), 15, "it serves a good driver");
}

fn make(kind: u8) -> Box<dyn Device> {
    let poll = Readiness::new().unwrap().of_device(0);
    match kind % 7 {
        0 => Box::new(DiskDevice::image(memory_file(4096)).unwrap()),
        1 => Box::new(DiskDevice::scratch(memory_file(4096)).unwrap()),
        2 => Box::new(DiskDevice::slot()),
        3 => Box::new(Entropy::new(|bytes| {
            bytes.fill(9);
            true
        })),
        4 => Box::new(Balloon::new(Mapping::Shared)),
        5 => {
            let (ours, _theirs) = UnixDatagram::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let packets = match kind >> 6 {
                0 => Packets::Ip,
                1 => Packets::Ethernet,
                _ => Packets::IpWithHeader,
            };
            let network = Network::new([2, 0, 0, 0, 0, 9], packets);
            Box::new(NetworkDevice::new(network, File::from(OwnedFd::from(ours)), poll))
        }
        _ => Box::new(Vsock::new(3, poll, Box::new(Pairs))),
    }
}

/// Gives the guest streams to nobody.
#[derive(Debug)]
struct Pairs;

impl Offer for Pairs {
    fn offer(&mut self, _port: u32) -> Option<OwnedFd> {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().ok()?;
        ours.set_nonblocking(true).ok()?;
        Some(ours.into())
    }
}
