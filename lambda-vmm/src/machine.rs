//! One virtual machine: memory, processors, interrupt controllers, and the devices at their places.

use std::fs::File;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kvm_bindings::{kvm_clock_data, kvm_cpuid_entry2, kvm_irqchip, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;
use vmm_sys_util::eventfd::EventFd;

use crate::boot::{self, IO_APIC_PINS};
use crate::bus::{Bus, DEVICE_BYTES, DEVICES, Place};
use crate::config::Disk;
use crate::control::Boot;
use crate::cpu::{self, get, put};
use crate::devices::{
    Balloon, Device, DiskDevice, Entropy, NetworkDevice, Offer, Vsock, from_kernel,
};
use crate::memory::{Mapping, Ram, host_ranges};
use crate::mmio::{Interrupt, Transport};
use crate::poll::{Readiness, Source};
use crate::snapshot;
use crate::vcpu::{Gate, Vcpu};
use crate::wire::{Reader, Wire, Writer};
use crate::{Config, Error};

/// The descriptors of a machine.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) memory: OwnedFd,
    /// The kernel, or the state of a snapshot.
    pub(crate) image: OwnedFd,
    /// Of the disks without slots.
    pub(crate) disks: Vec<OwnedFd>,
    pub(crate) network: Option<OwnedFd>,
}

/// A virtual machine without memory, processors and devices. Making it is the slow part of a start,
/// so that it can be made ahead.
#[derive(Debug)]
pub(crate) struct Blank {
    vm: VmFd,
    features: Vec<kvm_cpuid_entry2>,
    msrs: Vec<u32>,
}

/// A machine. Its processors wait at the gate until they are told to run.
#[derive(Debug)]
pub(crate) struct Machine {
    config: Config,
    vm: VmFd,
    ram: Ram,
    features: Vec<kvm_cpuid_entry2>,
    /// The numbers of the registers that KVM can save.
    msrs: Vec<u32>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) vcpus: Vec<Arc<Vcpu>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) attention: Arc<EventFd>,
}

impl Files {
    /// Assigns the descriptors of a start request to memory, kernel or snapshot, disks and network.
    pub(crate) fn sort(config: &Config, files: Vec<OwnedFd>) -> Result<Self, Error> {
        let filled = config.disks.iter().filter(|disk| **disk != Disk::Slot).count();
        let expected = 2 + filled + usize::from(config.network.is_some());
        let count = files.len();
        let wrong =
            || Error::invalid("the list of descriptors", format!("{count} instead of {expected}"));
        if count != expected {
            return Err(wrong());
        }
        let mut files = files.into_iter();
        let mut next = || files.next().ok_or_else(wrong);
        let (memory, image) = (next()?, next()?);
        let disks = (0..filled).map(|_| next()).collect::<Result<_, _>>()?;
        let network = config.network.map(|_| next()).transpose()?;
        Ok(Self { memory, image, disks, network })
    }
}

impl Blank {
    pub(crate) fn new(kvm: OwnedFd) -> Result<Self, Error> {
        let kvm = kvm_of(kvm)?;
        let vm = kvm.create_vm().map_err(Error::kvm("create the virtual machine"))?;
        vm.set_tss_address(TSS_ADDRESS).map_err(Error::kvm("set the address of the task state"))?;
        vm.create_irq_chip().map_err(Error::kvm("create the interrupt controllers"))?;
        let msrs = kvm.get_msr_index_list();
        let msrs = msrs.map_err(Error::kvm("list the processor's registers"))?;
        Ok(Self { vm, features: cpu::features(&kvm)?, msrs: msrs.as_slice().to_vec() })
    }
}

impl Machine {
    /// Completes a machine and puts a kernel, or the state of a snapshot, into it.
    pub(crate) fn new(
        blank: Blank,
        config: Config,
        boot: Boot,
        files: Files,
        readiness: &Readiness,
        offers: Box<dyn Offer>,
    ) -> Result<Self, Error> {
        let Blank { vm, features, msrs } = blank;
        let mapping = match boot {
            Boot::Kernel => Mapping::Shared,
            Boot::Snapshot => Mapping::Private,
        };
        let ram = Ram::map(files.memory, config.memory_bytes, mapping)?;
        add_memory(&vm, &ram)?;
        let attention = Arc::new(event()?);
        readiness.add(borrow(&attention), Source::Attention)?;
        let image = File::from(files.image);
        let mut machine = Self {
            msrs,
            gate: Arc::new(Gate::closed(Arc::clone(&attention))),
            bus: Arc::new(Bus::new(Vec::new(), Arc::clone(&attention), false)),
            vcpus: Vec::new(),
            config,
            vm,
            ram,
            features,
            attention,
        };
        let devices = machine.devices(files.disks, files.network, readiness, offers)?;
        let command_line = machine.place(devices, readiness)?;
        match boot {
            Boot::Kernel => {
                machine.add_vcpus()?;
                let config = &machine.config;
                let entry = boot::load(&mut machine.ram, &image, config, &command_line)?;
                machine.enter(entry)?;
            }
            Boot::Snapshot => machine.restore(&image)?,
        }
        Ok(machine)
    }

    /// Makes the devices in the order of their places. The vsock device is the first.
    fn devices(
        &self,
        disks: Vec<OwnedFd>,
        network: Option<OwnedFd>,
        readiness: &Readiness,
        offers: Box<dyn Offer>,
    ) -> Result<Vec<Box<dyn Device>>, Error> {
        let config = &self.config;
        let mut devices: Vec<Box<dyn Device>> = Vec::new();
        devices.push(Box::new(Vsock::new(config.guest_cid, readiness.of_device(VSOCK), offers)));
        if config.entropy {
            devices.push(Box::new(Entropy::new(from_kernel)));
        }
        let mut files = disks.into_iter().map(File::from);
        let missing = || Error::invalid("the list of descriptors", "a disk has none");
        for disk in &config.disks {
            devices.push(Box::new(match disk {
                Disk::ReadOnly => DiskDevice::image(files.next().ok_or_else(missing)?)?,
                Disk::Writable => DiskDevice::scratch(files.next().ok_or_else(missing)?)?,
                Disk::Slot => DiskDevice::slot(),
            }));
        }
        if config.free_page_reporting {
            devices.push(Box::new(Balloon::new(self.ram.mapping())));
        }
        if let Some((network, file)) = config.network.zip(network) {
            let poll = readiness.of_device(u8::try_from(devices.len()).unwrap_or(u8::MAX));
            devices.push(Box::new(NetworkDevice::new(network, File::from(file), poll)));
        }
        Ok(devices)
    }

    /// Returns the place of the disk with this number.
    pub(crate) fn disk(&self, number: u8) -> Option<&Place> {
        let first = usize::from(VSOCK) + 1 + usize::from(self.config.entropy);
        let is_there = usize::from(number) < self.config.disks.len();
        self.bus.places().get(first + usize::from(number)).filter(|_| is_there)
    }

    /// Puts the devices at their places. Returns the kernel's command line, which names them.
    fn place(
        &mut self,
        devices: Vec<Box<dyn Device>>,
        readiness: &Readiness,
    ) -> Result<String, Error> {
        let mut command_line = self.config.command_line.clone();
        let mut places = Vec::new();
        for (device, index) in devices.into_iter().zip(0_u8..) {
            let address = DEVICES + u64::from(index) * DEVICE_BYTES;
            let line = FIRST_LINE + u32::from(index);
            if line >= u32::from(IO_APIC_PINS) {
                return Err(Error::invalid("the configuration", "there are too many devices"));
            }
            let wire = event()?;
            self.vm.register_irqfd(&wire, line).map_err(Error::kvm("connect an interrupt"))?;
            let interrupt = Interrupt::new(Arc::new(wire));
            let transport = Transport::new(device, self.ram.memory().clone(), interrupt)?;
            let mut kicks = Vec::new();
            for queue in 0..u16::try_from(transport.queue_count()).unwrap_or(u16::MAX) {
                let kick = event()?;
                let notify = IoEventAddress::Mmio(address + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY));
                // Without it the write is an exit, which writes to the same descriptor.
                let _is_fast = self.vm.register_ioevent(&kick, &notify, u32::from(queue)).is_ok();
                readiness.add(borrow(&kick), Source::Queue { device: index, queue })?;
                kicks.push(kick);
            }
            places.push(Place::new(transport, kicks));
            command_line.push_str(&format!(" virtio_mmio.device=4K@{address:#x}:{line}"));
        }
        let attention = Arc::clone(&self.attention);
        self.bus = Arc::new(Bus::new(places, attention, self.config.console));
        Ok(command_line)
    }

    fn add_vcpus(&mut self) -> Result<(), Error> {
        for id in 0..self.config.vcpus {
            let vcpu = self.vm.create_vcpu(u64::from(id));
            let vcpu = vcpu.map_err(Error::kvm("create a processor"))?;
            cpu::set_features(&vcpu, &self.features, id, self.config.vcpus)?;
            self.vcpus.push(Arc::new(Vcpu::new(vcpu)));
        }
        Ok(())
    }

    /// Sets the first processor to the kernel's entry point. The kernel starts the others.
    fn enter(&self, entry: u64) -> Result<(), Error> {
        let Some(vcpu) = self.vcpus.first() else { return Ok(()) };
        let vcpu = vcpu.fd();
        let failed = || Error::kvm("set a processor's registers");
        let mut special = vcpu.get_sregs().map_err(failed())?;
        let registers = boot::registers(&mut special, entry);
        vcpu.set_sregs(&special).map_err(failed())?;
        vcpu.set_regs(&registers).map_err(failed())
    }

    /// Writes state and memory to files. All processors must stand still. Returns how many bytes
    /// of memory were written.
    pub(crate) fn save(&self, state: &File, memory: &File) -> Result<u64, Error> {
        let mut out = Writer::default();
        self.config.write(&mut out);
        out.bytes(&cpu::identity(&self.features));
        out.u32(u32::try_from(self.features.len()).unwrap_or(u32::MAX));
        self.features.iter().for_each(|entry| put(&mut out, entry));
        put(&mut out, &self.vm.get_clock().map_err(Error::kvm("read the clock"))?);
        for chip_id in 0..IRQ_CHIPS {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            let failed = Error::kvm("read an interrupt controller");
            self.vm.get_irqchip(&mut chip).map_err(failed)?;
            put(&mut out, &chip);
        }
        for vcpu in &self.vcpus {
            cpu::save(&vcpu.fd(), &self.msrs, &mut out)?;
        }
        for place in self.bus.places() {
            place.transport().save(&mut out);
        }
        let written = self.ram.save(memory)?;
        let bytes = snapshot::seal(&out.finish());
        state.write_all_at(&bytes, 0).map_err(Error::during("write the state file"))?;
        Ok(written)
    }

    fn restore(&mut self, state: &File) -> Result<(), Error> {
        let body = snapshot::open(state)?;
        let mut from = Reader::new(&body, "the snapshot");
        let saved = Config::read(&mut from)?;
        if (Config { command_line: self.config.command_line.clone(), ..saved }) != self.config {
            return Err(from.invalid("it is of a machine with another configuration"));
        }
        if from.bytes(IDENTITY_BYTES_MAX)? != cpu::identity(&self.features) {
            return Err(from.invalid("it is of a machine with another processor or KVM"));
        }
        let count = from.u32()?;
        if count > FEATURES_MAX {
            return Err(from.invalid("it has too many features"));
        }
        self.features = (0..count).map(|_| get(&mut from)).collect::<Result<_, _>>()?;
        self.add_vcpus()?;
        let mut clock: kvm_clock_data = get(&mut from)?;
        let mut chips = Vec::new();
        for _ in 0..IRQ_CHIPS {
            chips.push(get::<kvm_irqchip>(&mut from)?);
        }
        for (vcpu, number) in self.vcpus.iter().zip(0..) {
            cpu::restore(&vcpu.fd(), &mut from, number == 0)?;
        }
        for chip in &chips {
            let failed = Error::kvm("set an interrupt controller");
            self.vm.set_irqchip(chip).map_err(failed)?;
        }
        // The guest's monotonic clock goes on where it stopped: with the time that passed in
        // between, all its timers would be overdue at once. The agent sets the real-time clock.
        clock.flags = 0;
        self.vm.set_clock(&clock).map_err(Error::kvm("set the clock"))?;
        for place in self.bus.places() {
            place.transport().restore(&mut from)?;
        }
        from.end()
    }

    /// Serves what the guest had asked for before it was saved, and tells it that its streams are
    /// gone.
    pub(crate) fn resume_devices(&self) {
        self.bus.places().iter().for_each(|place| place.transport().resume());
    }
}

#[expect(unsafe_code, reason = "KVM's descriptor was passed to this process")]
fn kvm_of(file: OwnedFd) -> Result<Kvm, Error> {
    // SAFETY: ownership of the open descriptor moves into the value, which alone closes it. If it
    // is not KVM's, its requests fail.
    let kvm = unsafe { Kvm::from_raw_fd(file.into_raw_fd()) };
    if kvm.get_api_version() == KVM_API_VERSION {
        Ok(kvm)
    } else {
        Err(Error::invalid("the descriptor of /dev/kvm", "it does not have version 12 of KVM"))
    }
}

#[expect(unsafe_code, reason = "KVM takes addresses of this process")]
fn add_memory(vm: &VmFd, ram: &Ram) -> Result<(), Error> {
    for ((range, host), slot) in host_ranges(ram.memory())?.into_iter().zip(0_u32..) {
        let region = kvm_userspace_memory_region {
            slot,
            guest_phys_addr: range.start,
            memory_size: range.length,
            userspace_addr: host,
            flags: 0,
        };
        // SAFETY: address and length are those of a mapping that the machine owns as long as its
        // descriptor, and devices own with it. Rust code holds no references into it.
        let added = unsafe { vm.set_user_memory_region(region) };
        added.map_err(Error::kvm("give the guest its memory"))?;
    }
    Ok(())
}

fn event() -> Result<EventFd, Error> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(Error::during("make an event"))
}

#[expect(unsafe_code, reason = "EventFd gives its descriptor as a number alone")]
fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the event that the result borrows.
    unsafe { BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(event)) }
}

/// The place of the vsock device.
pub(crate) const VSOCK: u8 = 0;
/// The interrupt line of the first device. Lower ones are those of a PC's timer, keyboard and
/// serial ports.
const FIRST_LINE: u32 = 5;
/// Three pages below the BIOS that Intel's processors need to run real-mode code.
const TSS_ADDRESS: usize = 0xfffb_d000;
const KVM_API_VERSION: i32 = 12;
/// Two 8259 and one I/O APIC.
const IRQ_CHIPS: u32 = 3;
const IDENTITY_BYTES_MAX: usize = 4096;
const FEATURES_MAX: u32 = 256;
