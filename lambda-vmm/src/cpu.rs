//! Virtual processors: which features the guest sees, and their saved state.

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::wire::{Writer, structures};
use crate::{During, Error};

/// Returns the features for a guest: those of KVM without the denied ones.
pub(crate) fn features(kvm: &Kvm) -> Result<Vec<kvm_cpuid_entry2>, Error> {
    let all = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
    let all = all.during("read the processor's features")?;
    let entries = all.as_slice().iter().filter(|entry| !DENIED_LEAVES.contains(&entry.function));
    Ok(entries.map(|entry| permitted(*entry)).collect())
}

/// Removes the denied features from a leaf.
fn permitted(mut entry: kvm_cpuid_entry2) -> kvm_cpuid_entry2 {
    match (entry.function, entry.index) {
        (1, _) => {
            entry.ecx &= !DENIED_1_ECX;
            // A hypervisor, and the deadline timer of the APIC, which KVM implements itself.
            entry.ecx |= 1 << 31 | 1 << 24;
        }
        (7, 0) => {
            entry.ebx &= !DENIED_7_EBX;
            entry.ecx &= !DENIED_7_ECX;
            entry.edx &= !DENIED_7_EDX;
        }
        // The state of AMX does not fit in the saved state.
        (0xd, 0) => entry.eax &= !(0b11 << 17),
        // That state, and performance counters.
        (0xd, 17 | 18) | (0xa, _) => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        (0x4000_0001, _) => entry.eax &= ALLOWED_KVM,
        (0x8000_0001, _) => entry.ecx &= !DENIED_8000_0001_ECX,
        _ => {}
    }
    entry
}

/// Sets the features of one processor.
pub(crate) fn set_features(
    vcpu: &VcpuFd,
    features: &[kvm_cpuid_entry2],
    id: u8,
    vcpus: u8,
) -> Result<(), Error> {
    let own = |entry: &kvm_cpuid_entry2| {
        let mut entry = *entry;
        match entry.function {
            1 => {
                let count = u32::from(vcpus) << 16;
                entry.ebx = entry.ebx & 0xffff | u32::from(id) << 24 | count;
            }
            0xb | 0x1f => entry.edx = u32::from(id),
            _ => {}
        }
        entry
    };
    let entries: Vec<_> = features.iter().map(own).collect();
    let table = CpuId::from_entries(&entries)
        .map_err(|error| Error::invalid("the processor's features", format!("{error:?}")))?;
    vcpu.set_cpuid2(&table).during("set a processor's features")
}

/// Returns what must be equal on the machines that save and restore: vendor, model and features.
/// Parts that depend on the processor that was asked, such as its number, are left out.
pub(crate) fn identity(features: &[kvm_cpuid_entry2]) -> Vec<u8> {
    let mut out = Writer::default();
    for entry in features {
        match entry.function {
            0 | 7 | 0x8000_0000 | 0x8000_0001 | 0x4000_0001 => {
                out.u32(entry.eax).u32(entry.ebx).u32(entry.ecx).u32(entry.edx);
            }
            // Without the number of the processor.
            1 => {
                out.u32(entry.eax).u32(entry.ecx).u32(entry.edx);
            }
            0xd if entry.index < 2 => {
                out.u32(entry.eax).u32(entry.edx);
            }
            _ => {}
        }
    }
    out.finish()
}

/// The saved state of a processor.
#[derive(Debug)]
pub(crate) struct State {
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug_regs: kvm_debugregs,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    /// 0 if KVM does not know the frequency.
    tsc_khz: u32,
    msrs: Vec<kvm_msr_entry>,
}

structures! {
    State { mp_state, regs, sregs, xsave, xcrs, debug_regs, lapic, events, tsc_khz, msrs }
}

impl State {
    /// Reads the state of a processor that stands still. `msrs` are the numbers of the registers
    /// that KVM can save.
    pub(crate) fn read(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self, kvm_ioctls::Error> {
        Ok(Self {
            mp_state: vcpu.get_mp_state()?,
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
            xsave: vcpu.get_xsave()?,
            xcrs: vcpu.get_xcrs()?,
            debug_regs: vcpu.get_debug_regs()?,
            lapic: vcpu.get_lapic()?,
            events: vcpu.get_vcpu_events()?,
            tsc_khz: vcpu.get_tsc_khz().unwrap_or(0),
            msrs: read_msrs(vcpu, msrs)?,
        })
    }

    /// Gives the state to a processor of another machine. The first processor comes first.
    pub(crate) fn set(mut self, vcpu: &VcpuFd, is_first: bool) -> Result<(), kvm_ioctls::Error> {
        vcpu.set_mp_state(self.mp_state)?;
        vcpu.set_regs(&self.regs)?;
        vcpu.set_sregs(&self.sregs)?;
        set_xsave(vcpu, &self.xsave)?;
        vcpu.set_xcrs(&self.xcrs)?;
        vcpu.set_debug_regs(&self.debug_regs)?;
        if self.tsc_khz != 0 {
            // A processor whose counter cannot be scaled has the frequency of the host, and the
            // state then comes from a host of the same model.
            let _is_scaled = vcpu.set_tsc_khz(self.tsc_khz).is_ok();
        }
        // The APIC comes before its deadline, which is one of the registers.
        vcpu.set_lapic(&self.lapic)?;
        // Before Linux 6.7 KVM takes a counter that is less than a second away from that of a new
        // processor for an attempt to synchronize both, and leaves it: the guest's clock would
        // stand still for as long as the guest had run. Another value before makes it a new time,
        // to which further processors are synchronized.
        let counter = self.msrs.iter().find(|it| is_first && it.index == TIME_STAMP_COUNTER);
        let far = counter.map(|it| kvm_msr_entry { data: it.data.wrapping_add(FAR), ..*it });
        self.msrs.splice(0..0, far);
        in_parts(&self.msrs, |part| vcpu.set_msrs(part))?;
        vcpu.set_vcpu_events(&self.events)
    }
}

/// Reads the registers that exist. KVM lists some that a processor without their feature has not.
fn read_msrs(vcpu: &VcpuFd, numbers: &[u32]) -> Result<Vec<kvm_msr_entry>, kvm_ioctls::Error> {
    let entry = |index: &u32| kvm_msr_entry { index: *index, ..Default::default() };
    let wanted: Vec<_> = numbers.iter().map(entry).collect();
    let mut entries = Vec::new();
    in_parts(&wanted, |part| {
        let count = vcpu.get_msrs(part)?;
        entries.extend(part.as_slice().iter().take(count));
        Ok(count)
    })?;
    Ok(entries)
}

/// Has `call` handle as many registers as KVM takes at once, until none is left. KVM stops at the
/// first that does not exist or cannot be written, which is left out.
fn in_parts(
    entries: &[kvm_msr_entry],
    mut call: impl FnMut(&mut Msrs) -> Result<usize, kvm_ioctls::Error>,
) -> Result<(), kvm_ioctls::Error> {
    let mut rest = entries;
    while !rest.is_empty() {
        let part = &rest[..rest.len().min(MSRS_MAX)];
        let list = Msrs::from_entries(part);
        let count = call(&mut list.map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))?)?;
        rest = &rest[count + usize::from(count < part.len())..];
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the kernel reads as much as the processor's features need")]
fn set_xsave(vcpu: &VcpuFd, state: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: KVM_SET_XSAVE reads the 4,096 bytes of the structure, and more only if the process
    // has asked for features with larger state (arch_prctl), which this one never does.
    unsafe { vcpu.set_xsave(state) }
}

const TIME_STAMP_COUNTER: u32 = 0x10;
/// Minutes, in ticks of any processor.
const FAR: u64 = 1 << 40;
/// Debug store, nested virtualization, waiting instructions, debug interfaces.
const DENIED_1_ECX: u32 = 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 11 | 1 << 15;
/// SGX, transactional memory, resource monitoring and allocation, processor tracing, MPX.
const DENIED_7_EBX: u32 = 1 << 2 | 1 << 4 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 25;
/// User-mode waiting, bus lock detection, ENQCMD, SGX launch control.
const DENIED_7_ECX: u32 = 1 << 5 | 1 << 24 | 1 << 29 | 1 << 30;
/// TSX tracking, PCONFIG, architectural LBR, AMX.
const DENIED_7_EDX: u32 = 1 << 11 | 1 << 16 | 1 << 18 | 1 << 19 | 1 << 22 | 1 << 24 | 1 << 25;
/// Nested virtualization, instruction-based sampling, light-weight profiling, counters, waiting.
const DENIED_8000_0001_ECX: u32 =
    1 << 2 | 1 << 10 | 1 << 12 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 28 | 1 << 29;
/// KVM's clock (new registers, stable), end-of-interrupt and wake-up: interfaces whose state a
/// snapshot holds.
const ALLOWED_KVM: u32 = 1 << 3 | 1 << 6 | 1 << 7 | 1 << 24;
/// Resource monitoring and allocation, SGX, processor tracing, AMX, nested virtualization,
/// instruction-based sampling, memory encryption.
const DENIED_LEAVES: [u32; 10] =
    [0xf, 0x10, 0x12, 0x14, 0x1d, 0x1e, 0x8000_000a, 0x8000_001b, 0x8000_001f, 0x8000_0020];
/// The largest number of registers that KVM reads or sets in one call.
const MSRS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_features_are_not_seen_whatever_the_host_offers() {
        let all = |function, index| {
            permitted(kvm_cpuid_entry2 {
                function,
                index,
                eax: u32::MAX,
                ebx: u32::MAX,
                ecx: u32::MAX,
                edx: u32::MAX,
                ..Default::default()
            })
        };
        let (vmx, monitor, svm) = (1 << 5, 1 << 3, 1 << 2);
        assert_eq!(all(1, 0).ecx & (vmx | monitor), 0);
        assert_eq!(all(0x8000_0001, 0).ecx & svm, 0);
        assert_eq!(all(7, 0).edx & (1 << 24), 0, "AMX");
        assert_eq!(all(0xd, 0).eax & (0b11 << 17), 0, "AMX");
        assert_eq!(all(0xa, 0).eax, 0, "counters");
        assert_eq!(all(0x4000_0001, 0).eax, ALLOWED_KVM);
        assert_eq!(all(2, 0).eax, u32::MAX, "other leaves pass");
    }
}
