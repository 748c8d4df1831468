//! A guest's packets through a TUN device of the kernel, both ways, in a network namespace of the
//! test's own.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "TUN devices and their addresses are made with ioctl")]
#![cfg(target_arch = "x86_64")]

mod machine;
mod programs;

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

use lambda_vmm::{Cause, Event, Network, Packets, Resources, Source, memory_file};
use machine::{TIME, kernel, kvm, prepare, tiny};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PORT: u16 = 7;

/// `struct ifreq` of netdevice(7).
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    value: [u8; 24],
}

fn ask(file: &impl AsRawFd, number: u64, value: &[u8]) {
    let mut request = InterfaceRequest { name: [0; 16], value: [0; 24] };
    request.name[..4].copy_from_slice(b"vmm0");
    request.value[..value.len()].copy_from_slice(value);
    // SAFETY: the descriptor is open, and the request is a whole `struct ifreq` of 40 bytes, which
    // outlives the call.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), number, &raw mut request) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

/// Makes the device `vmm0` in this thread's namespace, with the host's address.
fn tun(flags: u16) -> File {
    const TUNSETIFF: u64 = 0x4004_54ca;
    const TUNSETOFFLOAD: u64 = 0x4004_54d0;
    const CHECKSUMS_AND_SEGMENTS: u64 = 3;
    let mut options = File::options();
    let tun = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let tun = tun.unwrap();
    ask(&tun, TUNSETIFF, &flags.to_ne_bytes());
    if flags & IFF_VNET_HDR != 0 {
        // SAFETY: the descriptor is open; the argument is a number.
        let code = unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETOFFLOAD, CHECKSUMS_AND_SEGMENTS) };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    }
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut address = 2_u16.to_ne_bytes().to_vec();
    address.extend([0, 0]);
    address.extend(HOST.octets());
    ask(&socket, libc::SIOCSIFADDR, &address);
    address[4..].copy_from_slice(&[255, 255, 255, 0]);
    ask(&socket, libc::SIOCSIFNETMASK, &address);
    ask(&socket, libc::SIOCSIFFLAGS, &1_u16.to_ne_bytes());
    tun
}

/// Returns an Ethernet frame with a UDP packet of the guest to the host, without a checksum of UDP.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = |headers: usize| u16::try_from(headers + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(28));
    packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    packet.extend(GUEST.octets());
    packet.extend(HOST.octets());
    let words = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let sum = !u16::try_from(sum % 0xffff).unwrap();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(length(8));
    packet.extend([0, 0]);
    packet.extend(payload);
    [&[2; 6][..], &[2, 0, 0, 0, 0, 9], &[8, 0], &packet].concat()
}

const IFF_TUN: u16 = 1;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// Has a guest send `hello` to the host, and the host `world` to the guest.
fn exchange(name: &str, packets: Packets, flags: u16) {
    let Some(kvm) = kvm(name) else { return };
    if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        return test_support::left_out(name, &format!("no network namespace: {error}"));
    }
    let tun = tun(flags);
    let socket = UdpSocket::bind((HOST, PORT)).unwrap();
    socket.set_read_timeout(Some(TIME)).unwrap();
    let mut config = tiny();
    config.network = Some(Network::new([2, 0, 0, 0, 0, 9], packets));
    let memory = memory_file(&config).unwrap();
    let kernel = kernel(&programs::network(&frame(b"hello")));
    let (prepared, mut process) = prepare(&kvm).unwrap();
    let resources = Resources {
        memory: memory.as_fd(),
        boot: Source::Kernel(kernel.as_fd()),
        disks: &[],
        network: Some(tun.as_fd()),
    };
    let mut vm = prepared.start(&config, &resources, TIME).unwrap();
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"hello"[..], GUEST.into()));
    socket.send_to(b"world", from).unwrap();
    match vm.event(TIME).unwrap() {
        Event::Ended { cause, report } => {
            assert_eq!((cause, &report.console[..]), (Cause::Shutdown, &b"world"[..]));
        }
        other => panic!("{other:?}"),
    }
    assert!(process.0.wait().unwrap().success());
}

#[test]
fn packets_pass_a_tun_device() {
    exchange("packets_pass_a_tun_device", Packets::Ip, IFF_TUN | IFF_NO_PI);
}

/// As the cards of `lambda-network` make their devices.
#[test]
fn packets_pass_a_tun_device_with_a_header() {
    let flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    exchange("packets_pass_a_tun_device_with_a_header", Packets::IpWithHeader, flags);
}
