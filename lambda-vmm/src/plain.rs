//! KVM's structures as bytes, and bytes as KVM's structures.

use kvm_bindings::{
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

/// A structure of the kernel's interface that is numbers throughout.
///
/// # Safety
///
/// The type has the C layout and no implicit padding, and every bit pattern is a value of it.
pub(crate) unsafe trait Plain: Sized {}

macro_rules! plain {
    ($($name:ty),* $(,)?) => { $(
        // SAFETY: the type is generated from the kernel's header with `repr(C)`. Its fields are
        // integers, arrays and unions of integers, and reserved fields fill its padding: 32-bit and
        // 64-bit kernels share the layout.
        unsafe impl Plain for $name {}
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

/// Returns the bytes of a structure.
pub(crate) fn bytes<T: Plain>(value: &T) -> &[u8] {
    let start = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: the pointer comes from a reference to `size_of::<T>()` bytes, which lives as long as
    // the slice. `Plain` promises that there is no padding, so every byte is initialized.
    unsafe { std::slice::from_raw_parts(start, size_of::<T>()) }
}

/// Returns the structure with these bytes, or `None` if their number is not its size.
pub(crate) fn value<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: the slice has the size of the type, `read_unaligned` asks for no alignment, and
    // `Plain` promises that every bit pattern is a value.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
