//! The configuration of a machine, with its limits and its binary form.

use crate::Error;
use crate::wire::{structures, variants};

/// What a machine consists of. The descriptors that belong to it are passed beside it
/// ([`Resources`](crate::Resources)).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Guest memory in bytes: a multiple of 4,096, from 2 MiB to 64 GiB.
    pub memory_bytes: u64,
    /// Number of virtual processors, from 1 to 32.
    pub vcpus: u8,
    /// The guest's vsock address. 3 or more; the host is 2.
    pub guest_cid: u32,
    /// The kernel's command line, at most 1,024 printable ASCII characters. The devices are added
    /// to it.
    pub command_line: String,
    /// The disks in the order of their names in the guest: `/dev/vda`, `/dev/vdb`. At most 14.
    pub disks: Vec<Disk>,
    /// The network device, or `None` for a guest without network.
    pub network: Option<Network>,
    /// Whether the guest has an entropy device. Without it, its kernel takes randomness from the
    /// processor (`random.trust_cpu=on`), and from the host's program.
    pub entropy: bool,
    /// Whether the guest reports its free pages, which are then given back to the host.
    pub free_page_reporting: bool,
    /// Whether the guest has a serial port, whose last 16 KiB of output are kept for the host.
    pub console: bool,
}

/// A disk of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disk {
    /// An image that the guest reads. All machines with the same image share the host's page
    /// cache.
    ReadOnly,
    /// A file that the guest reads and writes, of a fixed size.
    Writable,
    /// A place for read-only images, which come and go while the machine runs
    /// ([`Vm::attach`](crate::Vm::attach)). It has 1 TiB, is empty at the start, and reads as zeros
    /// beyond the end of its image. A guest must have closed the disk (unmounted it) before its
    /// image is exchanged: it keeps what it has read until then.
    Slot,
}

/// The network device of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Network {
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// The packets that the passed descriptor carries.
    pub packets: Packets,
}

/// The packets that a TUN or TAP descriptor carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packets {
    /// Ethernet frames (a TAP device without `IFF_VNET_HDR`).
    Ethernet,
    /// IP packets (a TUN device with `IFF_NO_PI`). The VMM answers the guest's ARP requests and
    /// adds and removes the Ethernet header.
    Ip,
    /// IP packets, each behind a `virtio_net_hdr` of 10 bytes (a TUN device with `IFF_NO_PI` and
    /// `IFF_VNET_HDR`): TCP segments of up to 64 KiB and unfinished checksums pass, both ways, if
    /// the guest's driver takes them. The guest writes the header of what it sends: the other end
    /// must check it, as the kernel's TUN device does.
    IpWithHeader,
}

impl Config {
    /// A machine with one processor, no disks and no network.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            vcpus: 1,
            guest_cid: 3,
            command_line: COMMAND_LINE.to_owned(),
            disks: Vec::new(),
            network: None,
            entropy: true,
            free_page_reporting: true,
            console: false,
        }
    }

    /// Checks the limits.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names the first field that is out of its limits.
    pub fn check(&self) -> Result<(), Error> {
        let refused = |why: &str| Err(Error::invalid("the configuration", why));
        if !self.memory_bytes.is_multiple_of(4096) || !MEMORY_BYTES.contains(&self.memory_bytes) {
            return refused("memory_bytes is not a multiple of 4,096 from 2 MiB to 64 GiB");
        }
        if !(1..=VCPUS_MAX).contains(&self.vcpus) {
            return refused("vcpus is not from 1 to 32");
        }
        if self.guest_cid < 3 || self.guest_cid == u32::MAX {
            return refused("guest_cid is reserved");
        }
        let printable = self.command_line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !printable || self.command_line.len() > COMMAND_LINE_MAX {
            return refused("command_line is not at most 1,024 printable ASCII characters");
        }
        if self.disks.len() > DISKS_MAX {
            return refused("there are more than 14 disks");
        }
        if self.network.is_some_and(|network| network.mac[0] & 1 != 0) {
            return refused("the hardware address is a multicast address");
        }
        Ok(())
    }
}

structures! {
    Config {
        memory_bytes, vcpus, guest_cid, command_line, disks, network, entropy, free_page_reporting, console,
    }
    Network { mac, packets }
}

variants! {
    Disk { 0 => ReadOnly, 1 => Writable, 2 => Slot }
    Packets { 0 => Ethernet, 1 => Ip, 2 => IpWithHeader }
}

impl Network {
    /// A network device with the hardware address `mac`.
    #[must_use]
    pub fn new(mac: [u8; 6], packets: Packets) -> Self {
        Self { mac, packets }
    }
}

/// `no_timer_check`, `i8042.noaux` and the like keep the kernel from waiting for devices that do
/// not exist. Without a serial driver no console is written.
const COMMAND_LINE: &str = "quiet reboot=t panic=-1 8250.nr_uarts=0 tsc=reliable \
                            random.trust_cpu=on root=/dev/vda ro init=/init";
const COMMAND_LINE_MAX: usize = 1024;
const VCPUS_MAX: u8 = 32;
const DISKS_MAX: usize = 14;
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 2 << 20..=64 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Boot, Request};

    /// Reads a configuration as a machine's process does.
    fn read(config: &Config) -> Result<Request, Error> {
        Request::parse(&Request::Start { config: config.clone(), boot: Boot::Kernel }.bytes())
    }

    #[test]
    fn a_configuration_survives_its_binary_form() {
        let mut config = Config::new(128 << 20);
        config.vcpus = 2;
        config.disks = vec![Disk::ReadOnly, Disk::Writable, Disk::Slot];
        config.network = Some(Network::new([2, 0, 0, 0, 0, 1], Packets::Ip));
        config.console = true;
        assert_eq!(read(&config).unwrap(), Request::Start { config, boot: Boot::Kernel });
    }

    #[test]
    fn each_limit_is_checked() {
        let check = |change: fn(&mut Config)| {
            let mut config = Config::new(128 << 20);
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert_eq!(read(&config).unwrap_err().to_string(), error);
            error
        };
        assert!(check(|it| it.memory_bytes = 1 << 20).contains("memory_bytes"));
        assert!(check(|it| it.memory_bytes += 1).contains("memory_bytes"));
        assert!(check(|it| it.vcpus = 0).contains("vcpus"));
        assert!(check(|it| it.vcpus = 33).contains("vcpus"));
        assert!(check(|it| it.guest_cid = 2).contains("guest_cid"));
        assert!(check(|it| it.command_line = "a\nb".into()).contains("command_line"));
        assert!(check(|it| it.command_line = "a".repeat(1025)).contains("command_line"));
        assert!(check(|it| it.disks = vec![Disk::ReadOnly; 15]).contains("disks"));
        assert!(
            check(|it| it.network = Some(Network::new([1; 6], Packets::Ip))).contains("multicast")
        );
    }
}
