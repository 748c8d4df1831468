//! The binary form of KVM's structures: their bytes.

use kvm_bindings::{
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

use crate::Error;
use crate::wire::{Reader, Wire, Writer};

/// A structure of the kernel's interface that is numbers throughout.
///
/// # Safety
///
/// The type has the C layout and no implicit padding, and every bit pattern is a value of it.
unsafe trait Plain: Sized {}

macro_rules! plain {
    ($($name:ty),* $(,)?) => { $(
        // SAFETY: the type is generated from the kernel's header with `repr(C)`. Its fields are
        // integers, arrays and unions of integers, and reserved fields fill its padding: 32-bit and
        // 64-bit kernels share the layout.
        unsafe impl Plain for $name {}

        impl Wire for $name {
            fn write(&self, out: &mut Writer) {
                out.raw(bytes(self));
            }
            fn read(from: &mut Reader<'_>) -> Result<Self, Error> {
                value(from)
            }
        }
    )* };
}

plain!(
    kvm_clock_data,
    kvm_cpuid_entry2,
    kvm_debugregs,
    kvm_irqchip,
    kvm_lapic_state,
    kvm_mp_state,
    kvm_msr_entry,
    kvm_regs,
    kvm_sregs,
    kvm_vcpu_events,
    kvm_xcrs,
    kvm_xsave,
);

fn bytes<T: Plain>(value: &T) -> &[u8] {
    let start = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: the pointer comes from a reference to `size_of::<T>()` bytes, which lives as long as
    // the slice. `Plain` promises that there is no padding, so every byte is initialized.
    unsafe { std::slice::from_raw_parts(start, size_of::<T>()) }
}

fn value<T: Plain>(from: &mut Reader<'_>) -> Result<T, Error> {
    let bytes = from.raw(size_of::<T>())?;
    // SAFETY: `raw` has returned as many bytes as the type has, `read_unaligned` asks for no
    // alignment, and `Plain` promises that every bit pattern is a value.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
