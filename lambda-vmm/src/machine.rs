//! One virtual machine: memory, processors, interrupt controllers, and the devices at their places.

use std::fs::File;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kvm_bindings::{kvm_clock_data, kvm_cpuid_entry2, kvm_irqchip, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::boot::{self, IO_APIC_PINS};
use crate::bus::{Bus, DEVICE_BYTES, DEVICES, Place};
use crate::config::Disk;
use crate::control::Boot;
use crate::cpu;
use crate::devices::{
    Balloon, Device, DiskDevice, Entropy, NetworkDevice, Offer, Vsock, from_kernel,
};
use crate::memory::{Mapping, Ram};
use crate::mmio::Transport;
use crate::poll::{Readiness, Source};
use crate::snapshot::Saved;
use crate::vcpu::{Gate, Vcpu};
use crate::{Config, During, Error};

/// The descriptors of a start request: memory, kernel or snapshot, disks without slots, network.
#[derive(Debug)]
struct Files(std::vec::IntoIter<OwnedFd>);

/// A virtual machine without memory, processors and devices. Making it is the slow part of a start,
/// so that it can be made ahead.
#[derive(Debug)]
pub(crate) struct Blank {
    vm: VmFd,
    features: Vec<kvm_cpuid_entry2>,
    /// The numbers of the registers that KVM can save.
    msrs: Vec<u32>,
}

/// A machine. Its processors wait at the gate until they are told to run.
#[derive(Debug)]
pub(crate) struct Machine {
    config: Config,
    blank: Blank,
    ram: Ram,
    pub(crate) bus: Arc<Bus>,
    pub(crate) vcpus: Vec<Arc<Vcpu>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) attention: Arc<EventFd>,
}

impl Files {
    fn of(config: &Config, files: Vec<OwnedFd>) -> Result<Self, Error> {
        let filled = config.disks.iter().filter(|disk| **disk != Disk::Slot).count();
        let expected = 2 + filled + usize::from(config.network.is_some());
        if files.len() != expected {
            let why = format!("{} instead of {expected}", files.len());
            return Err(Error::invalid("the list of descriptors", why));
        }
        Ok(Self(files.into_iter()))
    }

    fn next(&mut self) -> Result<OwnedFd, Error> {
        self.0.next().ok_or_else(|| Error::invalid("the list of descriptors", "it is too short"))
    }
}

impl Blank {
    pub(crate) fn new(kvm: OwnedFd) -> Result<Self, Error> {
        let kvm = kvm_of(kvm)?;
        let vm = kvm.create_vm().during("create the virtual machine")?;
        vm.set_tss_address(TSS_ADDRESS).during("set the address of the task state")?;
        vm.create_irq_chip().during("create the interrupt controllers")?;
        let msrs = kvm.get_msr_index_list().during("list the processor's registers")?;
        Ok(Self { vm, features: cpu::features(&kvm)?, msrs: msrs.as_slice().to_vec() })
    }
}

impl Machine {
    /// Completes a machine and puts a kernel, or the state of a snapshot, into it.
    pub(crate) fn new(
        blank: Blank,
        config: Config,
        boot: Boot,
        files: Vec<OwnedFd>,
        readiness: &Readiness,
        offers: Box<dyn Offer>,
    ) -> Result<Self, Error> {
        let mapping = match boot {
            Boot::Kernel => Mapping::Shared,
            Boot::Snapshot => Mapping::Private,
        };
        let mut files = Files::of(&config, files)?;
        let ram = Ram::map(files.next()?, config.memory_bytes, mapping)?;
        add_memory(&blank.vm, &ram)?;
        let image = File::from(files.next()?);
        let attention = Arc::new(event()?);
        readiness.add(borrow(&attention), Source::Attention)?;
        let mut command_line = config.command_line.clone();
        let mut places = Vec::new();
        let devices = devices(&config, &mut files, mapping, readiness, offers)?;
        for (device, index) in devices.into_iter().zip(0_u8..) {
            let address = DEVICES + u64::from(index) * DEVICE_BYTES;
            let line = FIRST_LINE + u32::from(index);
            if line >= u32::from(IO_APIC_PINS) {
                return Err(Error::invalid("the configuration", "there are too many devices"));
            }
            let wire = event()?;
            blank.vm.register_irqfd(&wire, line).during("connect an interrupt")?;
            let transport = Transport::new(device, ram.memory().clone(), wire)?;
            let kicks = kicks(&blank.vm, readiness, index, address, transport.queue_count())?;
            places.push(Place::new(transport, kicks));
            command_line.push_str(&format!(" virtio_mmio.device=4K@{address:#x}:{line}"));
        }
        let mut machine = Self {
            bus: Arc::new(Bus::new(places, Arc::clone(&attention), config.console)),
            gate: Arc::new(Gate::closed(Arc::clone(&attention))),
            vcpus: Vec::new(),
            config,
            blank,
            ram,
            attention,
        };
        match boot {
            Boot::Kernel => {
                machine.add_vcpus()?;
                let config = &machine.config;
                let entry = boot::load(&mut machine.ram, &image, config, &command_line)?;
                machine.enter(entry).during("set a processor's registers")?;
            }
            Boot::Snapshot => machine.restore(&image)?,
        }
        Ok(machine)
    }

    /// Returns the place of the disk with this number.
    pub(crate) fn disk(&self, number: u8) -> Option<&Place> {
        let first = usize::from(VSOCK) + 1 + usize::from(self.config.entropy);
        let is_there = usize::from(number) < self.config.disks.len();
        self.bus.places().get(first + usize::from(number)).filter(|_| is_there)
    }

    fn add_vcpus(&mut self) -> Result<(), Error> {
        for id in 0..self.config.vcpus {
            let vcpu = self.blank.vm.create_vcpu(u64::from(id)).during("create a processor")?;
            cpu::set_features(&vcpu, &self.blank.features, id, self.config.vcpus)?;
            self.vcpus.push(Arc::new(Vcpu::new(vcpu)));
        }
        Ok(())
    }

    /// Sets the first processor to the kernel's entry point. The kernel starts the others.
    fn enter(&self, entry: u64) -> Result<(), kvm_ioctls::Error> {
        let Some(vcpu) = self.vcpus.first() else { return Ok(()) };
        let vcpu = vcpu.fd();
        let mut special = vcpu.get_sregs()?;
        let registers = boot::registers(&mut special, entry);
        vcpu.set_sregs(&special)?;
        vcpu.set_regs(&registers)
    }

    /// Writes state and memory to files. All processors must stand still. Returns how many bytes
    /// of memory were written.
    pub(crate) fn save(&self, state: &File, memory: &File) -> Result<u64, Error> {
        let mut chips = [0, 1, 2].map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for chip in &mut chips {
            self.blank.vm.get_irqchip(chip).during("read an interrupt controller")?;
        }
        let vcpus = self.vcpus.iter();
        let vcpus = vcpus.map(|vcpu| cpu::State::read(&vcpu.fd(), &self.blank.msrs));
        let places = self.bus.places().iter();
        let saved = Saved {
            config: self.config.clone(),
            identity: cpu::identity(&self.blank.features),
            features: self.blank.features.clone(),
            clock: self.blank.vm.get_clock().during("read the clock")?,
            chips,
            vcpus: vcpus.collect::<Result<_, _>>().during("read a processor's state")?,
            devices: places.map(|place| place.transport().save()).collect(),
        };
        let written = self.ram.save(memory)?;
        state.write_all_at(&saved.seal(), 0).during("write the state file")?;
        Ok(written)
    }

    fn restore(&mut self, state: &File) -> Result<(), Error> {
        let refused = |why: &str| Err(Error::invalid("the snapshot", why));
        let saved = Saved::open(state)?;
        let config =
            Config { command_line: self.config.command_line.clone(), ..saved.config.clone() };
        if config != self.config
            || saved.vcpus.len() != usize::from(config.vcpus)
            || saved.devices.len() != self.bus.places().len()
        {
            return refused("it is of a machine with another configuration");
        }
        if saved.identity != cpu::identity(&self.blank.features) {
            return refused("it is of a machine with another processor or KVM");
        }
        self.blank.features = saved.features;
        self.add_vcpus()?;
        for ((vcpu, state), number) in self.vcpus.iter().zip(saved.vcpus).zip(0..) {
            state.set(&vcpu.fd(), number == 0).during("set a processor's state")?;
        }
        let vm = &self.blank.vm;
        for chip in &saved.chips {
            vm.set_irqchip(chip).during("set an interrupt controller")?;
        }
        // The guest's monotonic clock goes on where it stopped: with the time that passed in
        // between, all its timers would be overdue at once. The agent sets the real-time clock.
        vm.set_clock(&kvm_clock_data { flags: 0, ..saved.clock }).during("set the clock")?;
        let mut places = self.bus.places().iter().zip(saved.devices);
        places.try_for_each(|(place, state)| place.transport().restore(state))
    }

    /// Serves what the guest had asked for before it was saved, and tells it that its streams are
    /// gone.
    pub(crate) fn resume_devices(&self) {
        self.bus.places().iter().for_each(|place| place.transport().resume());
    }
}

/// Makes the devices in the order of their places. The vsock device is the first.
fn devices(
    config: &Config,
    files: &mut Files,
    mapping: Mapping,
    readiness: &Readiness,
    offers: Box<dyn Offer>,
) -> Result<Vec<Box<dyn Device>>, Error> {
    let mut devices: Vec<Box<dyn Device>> = Vec::new();
    devices.push(Box::new(Vsock::new(config.guest_cid, readiness.of_device(VSOCK), offers)));
    if config.entropy {
        devices.push(Box::new(Entropy::new(from_kernel)));
    }
    for disk in &config.disks {
        devices.push(Box::new(match disk {
            Disk::ReadOnly => DiskDevice::image(files.next()?.into())?,
            Disk::Writable => DiskDevice::scratch(files.next()?.into())?,
            Disk::Slot => DiskDevice::slot(),
        }));
    }
    if config.free_page_reporting {
        devices.push(Box::new(Balloon::new(mapping)));
    }
    if let Some(network) = config.network {
        let poll = readiness.of_device(u8::try_from(devices.len()).unwrap_or(u8::MAX));
        devices.push(Box::new(NetworkDevice::new(network, files.next()?.into(), poll)));
    }
    Ok(devices)
}

/// Makes the descriptors by which the guest wakes the thread of the devices for each queue.
fn kicks(
    vm: &VmFd,
    readiness: &Readiness,
    device: u8,
    address: u64,
    queues: u16,
) -> Result<Vec<EventFd>, Error> {
    let kick = |queue| {
        let kick = event()?;
        let notify = IoEventAddress::Mmio(address + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY));
        // Without it the write is an exit, which writes to the same descriptor.
        let _is_fast = vm.register_ioevent(&kick, &notify, u32::from(queue)).is_ok();
        readiness.add(borrow(&kick), Source::Queue { device, queue })?;
        Ok(kick)
    };
    (0..queues).map(kick).collect()
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
    for (region, slot) in ram.memory().iter().zip(0..) {
        let region = kvm_userspace_memory_region {
            slot,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            flags: 0,
        };
        // SAFETY: address and length are those of a mapping that the machine owns as long as its
        // descriptor, and devices own with it. Rust code holds no references into it.
        let added = unsafe { vm.set_user_memory_region(region) };
        added.during("give the guest its memory")?;
    }
    Ok(())
}

fn event() -> Result<EventFd, Error> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).during("make an event")
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
