//! Every device against a driver that breaks the rules: loops, lengths, addresses, indices, resets.
//! Whatever it does, each call ends, and after a reset the device serves a good driver.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};

use super::steps::{Step, carry_out};
use super::{BUFFERS, Driver, MEMORY_BYTES, RINGS, SIZE};
use crate::config::{Network, Packets};
use crate::devices::{
    Balloon, CHAINS_MAX, DiskDevice, Entropy, NetworkDevice, Offer, Rings, Vsock,
};
use crate::memory::Mapping;
use crate::poll::Readiness;

fn step() -> impl Strategy<Value = Step> {
    let address = prop_oneof![
        0..MEMORY_BYTES + 0x2000,
        RINGS..RINGS + 0x3000,
        BUFFERS..BUFFERS + 0x1000,
        any::<u64>(),
        Just(u64::MAX - 15),
    ];
    let length = prop_oneof![0..64_u32, 0..0x2_0000_u32, any::<u32>(), Just(u32::MAX)];
    let register = prop_oneof![
        (0..0x42_u64).prop_map(|at| at * 4),
        Just(0x70),
        Just(0x44),
        Just(0x38),
        any::<u64>(),
    ];
    let value = prop_oneof![0..20_u32, any::<u32>()];
    let bytes = prop::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..48);
    let index = prop_oneof![0..SIZE + 2, any::<u16>()];
    prop_oneof![
        2 => Just(Step::SetUp),
        2 => (register, value).prop_map(|(register, value)| Step::Register(register, value)),
        3 => (RINGS..BUFFERS + 0x2000, bytes).prop_map(|(at, bytes)| Step::Memory(at, bytes)),
        6 => (0..3_u8, index.clone(), address, length, 0..8_u16, index.clone()).prop_map(
            |(queue, at, address, length, flags, next)| {
                Step::Descriptor(queue, at, address, length, flags, next)
            }
        ),
        4 => (0..3_u8, index).prop_map(|(queue, index)| Step::Available(queue, index)),
        6 => (0..4_u16).prop_map(Step::Notify),
        1 => (0..3_u32).prop_map(Step::Ready),
        1 => Just(Step::Resume),
    ]
}

/// Runs the steps, and then a good driver.
fn survives(mut driver: Driver, steps: Vec<Step>, good: impl FnOnce(&mut Driver)) {
    for step in steps {
        carry_out(&mut driver, step);
    }
    driver.set_up();
    good(&mut driver);
}

fn cases() -> ProptestConfig {
    let cases = if test_support::long() { 100_000 } else { 500 };
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..60)
}

fn image(bytes: u64) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..=250).cycle().take(usize::try_from(bytes).unwrap()).collect();
    file.write_all(&content).unwrap();
    file
}

/// Reads sector `sector` of a disk by the rules.
fn read_sector(driver: &mut Driver, sector: u64) -> (u8, Vec<u8>) {
    let mut header = vec![0; 8];
    header.extend(sector.to_le_bytes());
    driver.put(BUFFERS, &header);
    driver.put(BUFFERS + 0x1000, &[0xee; 513]);
    let parts = [(BUFFERS, 16, false), (BUFFERS + 0x1000, 512, true), (BUFFERS + 0x1200, 1, true)];
    driver.add(0, &parts);
    driver.transport.notify(0);
    driver.take(0).unwrap();
    (driver.get(BUFFERS + 0x1200, 1)[0], driver.get(BUFFERS + 0x1000, 512))
}

fn write_sector(driver: &mut Driver, sector: u64, data: &[u8]) -> u8 {
    let mut header = vec![1, 0, 0, 0, 0, 0, 0, 0];
    header.extend(sector.to_le_bytes());
    driver.put(BUFFERS, &header);
    driver.put(BUFFERS + 0x1000, data);
    let length = u32::try_from(data.len()).unwrap();
    let parts =
        [(BUFFERS, 16, false), (BUFFERS + 0x1000, length, false), (BUFFERS + 0x8000, 1, true)];
    driver.add(0, &parts);
    driver.transport.notify(0);
    driver.take(0).unwrap();
    driver.get(BUFFERS + 0x8000, 1)[0]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_read_only_disk_survives(steps in steps()) {
        let driver = Driver::new(Box::new(DiskDevice::image(image(4096)).unwrap()));
        survives(driver, steps, |driver| {
            let (status, data) = read_sector(driver, 1);
            assert_eq!(status, 0);
            assert!(data.iter().enumerate().all(|(at, byte)| usize::from(*byte) == (512 + at) % 251));
        });
    }

    #[test]
    fn a_writable_disk_survives_and_keeps_its_size(steps in steps()) {
        let file = image(4096);
        let kept = file.try_clone().unwrap();
        let driver = Driver::new(Box::new(DiskDevice::scratch(file).unwrap()));
        survives(driver, steps, |driver| {
            assert_eq!(write_sector(driver, 2, &[7; 512]), 0);
            assert_eq!(read_sector(driver, 2), (0, vec![7; 512]));
        });
        assert_eq!(kept.metadata().unwrap().len(), 4096);
    }

    #[test]
    fn a_slot_survives(steps in steps(), is_filled: bool) {
        let mut slot = DiskDevice::slot();
        assert!(slot.attach(is_filled.then(|| image(4000))));
        let driver = Driver::new(Box::new(slot));
        survives(driver, steps, |driver| {
            let (status, data) = read_sector(driver, 7);
            assert_eq!(status, 0);
            let byte = |at: usize| if is_filled && at < 4000 { at % 251 } else { 0 };
            assert!(data.iter().enumerate().all(|(at, it)| usize::from(*it) == byte(7 * 512 + at)));
        });
    }

    #[test]
    fn entropy_survives(steps in steps()) {
        let fill = |bytes: &mut [u8]| { bytes.fill(9); true };
        survives(Driver::new(Box::new(Entropy::new(fill))), steps, |driver| {
            driver.put(BUFFERS, &[0; 64]);
            driver.add(0, &[(BUFFERS, 32, true)]);
            driver.transport.notify(0);
            assert_eq!(driver.take(0), Some(32));
            assert_eq!(driver.get(BUFFERS, 64), [[9; 32], [0; 32]].concat());
        });
    }

    #[test]
    fn free_page_reporting_survives_and_frees_reported_pages_alone(steps in steps()) {
        let driver = Driver::new(Box::new(Balloon::new(Mapping::Shared)));
        survives(driver, steps, |driver| {
            driver.put(BUFFERS, &[1; 3 * 4096]);
            driver.add(2, &[(BUFFERS + 4096, 4096, true)]);
            driver.transport.notify(2);
            assert_eq!(driver.take(2), Some(0));
            let expected = [[1; 4096], [0; 4096], [1; 4096]].concat();
            assert!(driver.get(BUFFERS, 3 * 4096) == expected);
        });
    }

    #[test]
    fn a_network_survives(steps in steps(), kind in 0..3_usize) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let packets = [Packets::Ethernet, Packets::Ip, Packets::IpWithHeader][kind];
        let network = Network::new([2, 0, 0, 0, 0, 9], packets);
        let poll = Readiness::new().unwrap().of_device(0);
        let file = File::from(OwnedFd::from(theirs));
        let driver = Driver::new(Box::new(NetworkDevice::new(network, file, poll)));
        survives(driver, steps, |driver| {
            let mut buffer = [0; 2048];
            while ours.recv(&mut buffer).is_ok() {}
            // A checksum that starts at byte 34 of the frame, and an IPv4 packet.
            let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
            let mut frame = header.to_vec();
            frame.extend([0; 12]);
            frame.extend([8, 0, 0x45, 1, 2, 3]);
            let expected = match packets {
                Packets::Ethernet => frame[12..].to_vec(),
                Packets::Ip => frame[26..].to_vec(),
                Packets::IpWithHeader => vec![1, 0, 0, 0, 0, 0, 20, 0, 6, 0, 0x45, 1, 2, 3],
            };
            driver.put(BUFFERS, &frame);
            driver.add(1, &[(BUFFERS, 12, false), (BUFFERS + 12, 18, false)]);
            driver.transport.notify(1);
            assert_eq!(driver.take(1), Some(0));
            let sent = ours.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..sent], expected);
            // And a packet of the host's.
            ours.send(&expected).unwrap();
            driver.add(0, &[(BUFFERS + 0x1000, 2048, true)]);
            driver.transport.notify(0);
            assert_eq!(driver.take(0), Some(30));
            let got = driver.get(BUFFERS + 0x1000, 30);
            assert_eq!(got[26..], [0x45, 1, 2, 3]);
            let kept = if packets == Packets::IpWithHeader { &header[..10] } else { &[0; 10] };
            assert_eq!((&got[..10], &got[10..12]), (kept, &[1, 0][..]));
        });
    }

    #[test]
    fn a_vsock_survives(steps in steps()) {
        let poll = Readiness::new().unwrap().of_device(0);
        let (offers, taken) = offers();
        let driver = Driver::new(Box::new(Vsock::new(3, poll, offers)));
        survives(driver, steps, |driver| {
            while taken.try_recv().is_ok() {}
            driver.add(0, &[(BUFFERS + 0x2000, 4096, true)]);
            // A request of port 9 to port 1 of the host.
            driver.put(BUFFERS, &packet(1, 9, 1, 0));
            driver.add(1, &[(BUFFERS, 44, false)]);
            driver.transport.notify(1);
            assert_eq!(driver.take(1), Some(0));
            let (port, _stream) = taken.recv().unwrap();
            assert_eq!(port, 1);
            assert_eq!(driver.take(0), Some(44));
            // The answer is a response.
            assert_eq!(driver.get(BUFFERS + 0x2000 + 30, 2), [2, 0]);
        });
    }
}

type Taken = std::sync::mpsc::Receiver<(u32, UnixStream)>;

#[derive(Debug)]
struct Offers(std::sync::mpsc::Sender<(u32, UnixStream)>);

impl Offer for Offers {
    fn offer(&mut self, port: u32) -> Option<OwnedFd> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        self.0.send((port, theirs)).unwrap();
        Some(ours.into())
    }
}

fn offers() -> (Box<dyn Offer>, Taken) {
    let (sender, receiver) = std::sync::mpsc::channel();
    (Box::new(Offers(sender)), receiver)
}

/// Makes a packet of the guest's port 9 to a port of the host.
fn packet(operation: u8, guest_port: u32, host_port: u32, length: u32) -> Vec<u8> {
    let mut bytes = 3_u64.to_le_bytes().to_vec();
    bytes.extend(2_u64.to_le_bytes());
    for word in [guest_port, host_port, length] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([1, 0, operation, 0, 0, 0, 0, 0]);
    bytes.extend(0x1_0000_u32.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes
}

/// A driver that makes the same chain available for ever gets at most so many in one call.
#[test]
fn racing_indices_do_not_keep_the_thread() {
    let fill = |bytes: &mut [u8]| {
        bytes.fill(1);
        true
    };
    let mut driver = Driver::new(Box::new(Entropy::new(fill)));
    driver.set_up();
    for _ in 0..SIZE {
        driver.add(0, &[(BUFFERS, 8, true)]);
    }
    assert!(!driver.transport.notify(0));
    let mut rings_queues = Queue::new(SIZE).unwrap();
    rings_queues.set_ready(true);
    let queues = std::slice::from_mut(&mut rings_queues);
    let memory = driver.memory.clone();
    queues[0].set_desc_table_address(Some(0x1000), Some(0));
    queues[0].set_avail_ring_address(Some(0x1400), Some(0));
    queues[0].set_used_ring_address(Some(0x1800), Some(0));
    let mut rings = Rings::new(queues, &memory);
    let mut served = 0_u32;
    // The driver moves the index on as fast as the device follows.
    loop {
        let index = u16::try_from(served % 0x1_0000).unwrap().wrapping_add(1);
        driver.put(RINGS + 0x402, &index.to_le_bytes());
        let Some(chain) = rings.next(0) else { break };
        rings.give(0, chain.head_index(), 0);
        served += 1;
    }
    assert_eq!(served, CHAINS_MAX);
    assert!(rings.is_left);
}

/// Descriptors that form a loop end at the queue's size.
#[test]
fn a_loop_of_descriptors_ends() {
    let mut driver = Driver::new(Box::new(DiskDevice::image(image(4096)).unwrap()));
    driver.set_up();
    driver.add(0, &[(BUFFERS, 16, false), (BUFFERS, 16, false)]);
    // The second points to the first again.
    driver.put(RINGS + 16 + 12, &[1, 0, 0, 0]);
    driver.transport.notify(0);
    assert_eq!(driver.take(0), Some(0));
}

/// An available index that is further ahead than the queue is long stops the device until a reset.
#[test]
fn an_impossible_index_asks_for_a_reset() {
    let mut driver = Driver::new(Box::new(DiskDevice::image(image(4096)).unwrap()));
    driver.set_up();
    driver.put(RINGS + 0x402, &1000_u16.to_le_bytes());
    driver.transport.notify(0);
    assert_eq!(driver.read(0x70) & 0x40, 0x40, "NEEDS_RESET");
    assert_eq!(driver.read(0x60), 2, "the configuration has changed");
    assert_eq!(driver.interrupt.read().unwrap(), 1);
    driver.set_up();
    assert_eq!(read_sector(&mut driver, 0).0, 0);
}

#[test]
fn a_disk_refuses_what_lies_outside_of_it() {
    let mut driver = Driver::new(Box::new(DiskDevice::image(image(4096)).unwrap()));
    driver.set_up();
    assert_eq!(read_sector(&mut driver, 7).0, 0);
    for sector in [8, u64::MAX / 512, u64::MAX / 512 + 1, u64::MAX] {
        assert_eq!(read_sector(&mut driver, sector).0, 1, "{sector}");
    }
    assert_eq!(write_sector(&mut driver, 0, &[0; 512]), 1, "a read-only disk");
}

/// A mapped image that was truncated ended its machine: an access past its end is a signal.
#[test]
fn a_truncated_image_gives_errors_and_the_disk_goes_on() {
    let file = image(4096);
    let kept = file.try_clone().unwrap();
    let mut driver = Driver::new(Box::new(DiskDevice::image(file).unwrap()));
    driver.set_up();
    assert_eq!(read_sector(&mut driver, 7).0, 0);
    kept.set_len(1024).unwrap();
    assert_eq!(read_sector(&mut driver, 7).0, 1, "an I/O error");
    assert_eq!(read_sector(&mut driver, 1).0, 0);
}

/// A slot has the image that was attached last, and keeps its size.
#[test]
fn images_of_a_slot_are_exchanged() {
    let mut driver = Driver::new(Box::new(DiskDevice::slot()));
    driver.set_up();
    let size = |driver: &Driver| (driver.read(0x100), driver.read(0x104));
    let sectors = size(&driver);
    assert_eq!(sectors, (1 << 31, 0), "1 TiB of sectors");
    assert_eq!(read_sector(&mut driver, 0), (0, vec![0; 512]));
    let attach = |driver: &mut Driver, image: Option<File>| {
        driver.transport.device_mut::<DiskDevice>().unwrap().attach(image)
    };
    for byte in [1, 2] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[byte; 512]).unwrap();
        assert!(attach(&mut driver, Some(file)));
        assert_eq!(read_sector(&mut driver, 0), (0, vec![byte; 512]));
        assert_eq!(read_sector(&mut driver, 1), (0, vec![0; 512]));
    }
    assert!(attach(&mut driver, None));
    assert_eq!(read_sector(&mut driver, 0), (0, vec![0; 512]));
    assert_eq!(write_sector(&mut driver, 0, &[7; 512]), 1, "a read-only disk");
    assert_eq!(read_sector(&mut driver, u64::from(sectors.0)).0, 1, "beyond the end");
    assert_eq!(size(&driver), sectors);
    let mut other = Driver::new(Box::new(DiskDevice::image(image(4096)).unwrap()));
    assert!(!attach(&mut other, None), "a disk without a slot");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut driver = Driver::new(Box::new(DiskDevice::image(image(4096)).unwrap()));
    for value in [0, 1, 3] {
        driver.write(0x70, value);
    }
    driver.write(0x24, 1);
    driver.write(0x20, u32::MAX);
    driver.write(0x70, 11);
    assert_eq!(driver.read(0x70), 3);
    // Without accepted features no queue can be set, and the device does not run.
    driver.write(0x44, 1);
    driver.write(0x70, 7);
    assert_eq!((driver.read(0x44), driver.read(0x70)), (0, 3));
}
