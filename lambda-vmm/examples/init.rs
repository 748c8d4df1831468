//! The first process of a test guest: answers commands of the host over a stream.
//!
//! A command is a line. `ping`, `random` and `time` are answered by a line; `echo N` by the N bytes
//! that follow; `sleep N` takes N milliseconds; `wake SEED NANOSECONDS` seeds the kernel and sets
//! its clock; `fill N` writes N MiB of memory and gives them back; `read PATH` answers with a
//! checksum; `write PATH N` writes N MiB; `udp TEXT` answers with what the host answers to a packet; `panic`, `spin` and `exit` end the guest in three ways.
#![expect(clippy::print_stderr, reason = "a test program")]
#![expect(unsafe_code, reason = "adding entropy to the kernel takes an ioctl")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

fn main() {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")] {
        let none: Option<&Path> = None;
        // A kernel without one of them has no use for it.
        let _is_done = mount(Some(kind), target, Some(kind), MsFlags::empty(), none).is_ok();
    }
    // Before the host is told anything.
    match listener() {
        Ok(listener) => drop(thread::spawn(move || listen(&listener))),
        Err(error) => eprintln!("init: no listener: {error}"),
    }
    let mut is_first = true;
    loop {
        // A stream ends when the machine was restored from a snapshot: this is another life.
        if let Ok(stream) = stream(HOST_PORT) {
            let kind = if is_first { "hello" } else { "again" };
            is_first = false;
            drop(serve(stream, kind));
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn stream(port: u32) -> io::Result<File> {
    let file = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(file.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, port))?;
    Ok(File::from(file))
}

/// Listens on [`GUEST_PORT`].
fn listener() -> io::Result<OwnedFd> {
    let file = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let address = VsockAddr::new(libc::VMADDR_CID_ANY, GUEST_PORT);
    nix::sys::socket::bind(file.as_raw_fd(), &address)?;
    nix::sys::socket::listen(&file, nix::sys::socket::Backlog::new(16)?)?;
    Ok(file)
}

/// Echoes every stream that the host opens.
fn listen(listener: &OwnedFd) -> io::Result<()> {
    loop {
        let stream = nix::sys::socket::accept(listener.as_raw_fd())?;
        thread::spawn(move || -> io::Result<u64> {
            // SAFETY: `accept` has just made the descriptor, which nothing else owns.
            let stream = File::from(unsafe { OwnedFd::from_raw_fd(stream) });
            io::copy(&mut &stream, &mut &stream)
        });
    }
}

fn serve(stream: File, kind: &str) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    writeln!(out, "{kind} {} {}", random(8)?, monotonic()?)?;
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ping"] => writeln!(out, "pong")?,
            ["random"] => writeln!(out, "{}", random(64)?)?,
            ["time"] => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
                writeln!(out, "{} {}", monotonic()?, now.as_nanos())?;
            }
            ["echo", count] => {
                let mut bytes = vec![0; count.parse().map_err(io::Error::other)?];
                input.read_exact(&mut bytes)?;
                out.write_all(&bytes)?;
            }
            ["wake", seed, now] => {
                wake(seed.as_bytes(), now.parse().map_err(io::Error::other)?)?;
                writeln!(out, "awake {}", random(64)?)?;
            }
            ["fill", mebibytes] => {
                let count: usize = mebibytes.parse().map_err(io::Error::other)?;
                let bytes = vec![1_u8; count << 20];
                let sum: u64 = bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum();
                drop(bytes);
                writeln!(out, "filled {sum}")?;
            }
            ["read", path] => match fs::read(path) {
                Ok(bytes) => writeln!(out, "{} {:08x}", bytes.len(), crc32fast::hash(&bytes))?,
                Err(error) => writeln!(out, "{error}")?,
            },
            ["write", path, mebibytes] => {
                let count: usize = mebibytes.parse().map_err(io::Error::other)?;
                let written = write(path, count << 20);
                writeln!(out, "{written:?}")?;
            }
            ["udp", text] => match udp(text) {
                Ok(answer) => writeln!(out, "{answer}")?,
                Err(error) => writeln!(out, "{error}")?,
            },
            ["sleep", milliseconds] => {
                let time = milliseconds.parse().map_err(io::Error::other)?;
                thread::sleep(Duration::from_millis(time));
                writeln!(out, "slept")?;
            }
            ["processors"] => {
                writeln!(out, "{}", thread::available_parallelism().map_or(0, usize::from))?;
            }
            ["console"] => {
                let mut port = fs::OpenOptions::new().write(true).open("/dev/kmsg")?;
                writeln!(port, "from the guest")?;
                writeln!(out, "written")?;
            }
            ["panic"] => fs::write("/proc/sysrq-trigger", "c")?,
            ["spin"] => loop {
                std::hint::spin_loop();
            },
            _ => {
                let _never = reboot(RebootMode::RB_AUTOBOOT)?;
            }
        }
    }
}

fn write(path: &str, count: usize) -> io::Result<String> {
    let bytes: Vec<u8> = (0..=250).cycle().take(count).collect();
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    Ok(format!("{:08x}", crc32fast::hash(&bytes)))
}

/// Sends a packet to the host over the network device, and returns its answer.
fn udp(text: &str) -> io::Result<String> {
    const ADDRESS: [u8; 8] = [2, 0, 0, 0, 10, 77, 0, 2];
    const MASK: [u8; 8] = [2, 0, 0, 0, 255, 255, 255, 0];
    let socket = UdpSocket::bind("0.0.0.0:7")?;
    let settings = [
        (libc::SIOCSIFADDR, &ADDRESS[..]),
        (libc::SIOCSIFNETMASK, &MASK),
        (libc::SIOCSIFFLAGS, &[1, 0]),
    ];
    for (request, value) in settings {
        // `struct ifreq` of netdevice(7): a name, and a value.
        let mut interface = [0_u8; 40];
        interface[..4].copy_from_slice(b"eth0");
        interface[16..16 + value.len()].copy_from_slice(value);
        // SAFETY: the descriptor is open, and the request has the 40 bytes of `struct ifreq`, which
        // outlive the call.
        if unsafe { libc::ioctl(socket.as_raw_fd(), request, interface.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send_to(text.as_bytes(), "10.77.0.1:7")?;
    let mut answer = [0; 100];
    let (length, _) = socket.recv_from(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn random(count: usize) -> io::Result<String> {
    let mut bytes = vec![0_u8; count];
    // SAFETY: pointer and length are those of one exclusive buffer.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(got) != Ok(count) {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn monotonic() -> io::Result<u128> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(Duration::from(time).as_nanos())
}

/// Adds a seed to the kernel's entropy and has it used at once, and sets the real-time clock.
fn wake(seed: &[u8], nanoseconds: u64) -> io::Result<()> {
    const ADD_ENTROPY: libc::c_ulong = 0x4008_5203;
    const RESEED: libc::c_ulong = 0x5207;
    let count = i32::try_from(seed.len()).map_err(io::Error::other)?;
    let mut request = (count * 4).to_ne_bytes().to_vec();
    request.extend(count.to_ne_bytes());
    request.extend(seed);
    let file = File::open("/dev/urandom")?;
    // SAFETY: the request has the layout of `rand_pool_info`: a count of bits, the length, and as
    // many bytes. It lives through the call.
    let added = unsafe { libc::ioctl(file.as_raw_fd(), ADD_ENTROPY, request.as_ptr()) };
    // SAFETY: the request has no argument.
    let used = unsafe { libc::ioctl(file.as_raw_fd(), RESEED) };
    if added != 0 || used != 0 {
        return Err(io::Error::last_os_error());
    }
    let time = TimeSpec::from(Duration::from_nanos(nanoseconds));
    clock_settime(ClockId::CLOCK_REALTIME, time)?;
    Ok(())
}

/// The port of the host that the guest connects to.
const HOST_PORT: u32 = 1;
/// The port of the guest that echoes.
const GUEST_PORT: u32 = 7;
