//! Slots: the positions of items in the engine's tables, a type for each kind of item.

/// A position in a table.
pub(crate) trait Slot: Copy {
    fn new(number: u32) -> Self;
    fn number(self) -> u32;
}

macro_rules! slot {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[repr(transparent)]
        pub(crate) struct $name(pub(crate) u32);

        impl $name {
            /// No slot.
            pub(crate) const NONE: Self = Self(u32::MAX);
        }

        impl Slot for $name {
            fn new(number: u32) -> Self {
                Self(number)
            }

            fn number(self) -> u32 {
                self.0
            }
        }
    };
}

slot!(
    /// The position of a sandbox in `State::sandboxes`.
    SandboxSlot
);
slot!(
    /// The position of a VM in its table.
    VmSlot
);
slot!(
    /// The position of a network interface in its table.
    InterfaceSlot
);

/// The list number of a sandbox that is in no list.
pub(crate) const UNLINKED: u16 = u16::MAX;
