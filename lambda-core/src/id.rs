//! Ids: newtypes, so that the compiler rejects one kind of id where another is expected.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub $number);
    };
}

id!(
    /// Identifies a worker. The driver chooses it as an index into its own table: below
    /// [`Config::workers_max`](crate::Config::workers_max), and reused only after the worker is
    /// gone.
    WorkerId(u32)
);
id!(
    /// Identifies a function. The driver chooses it as an index into its own table: below
    /// [`Config::functions_max`](crate::Config::functions_max), and reused only after
    /// [`Engine::knows_function`](crate::Engine::knows_function) returns `false` for it.
    FunctionId(u32)
);
id!(
    /// Identifies a customer. The driver chooses it, below
    /// [`Config::accounts_max`](crate::Config::accounts_max).
    AccountId(u32)
);
id!(
    /// Identifies a customer's network: the subnets and security groups of a VPC. The driver
    /// chooses it, below [`Config::networks_max`](crate::Config::networks_max).
    NetworkId(u32)
);
id!(
    /// Identifies an availability zone. The driver chooses it, below [`ZONES_MAX`].
    Zone(u8)
);
id!(
    /// Identifies an invocation. The driver chooses it. The engine returns it in commands, and
    /// compares it only with the invocation that runs in a sandbox when an event reports that
    /// invocation's end.
    InvocationId(u64)
);
id!(
    /// Identifies a sandbox. The engine chooses it: the lower 32 bits are a slot, the upper 32 bits
    /// are the generation of that slot. An id is never given twice.
    SandboxId(u64)
);
id!(
    /// Identifies a VM. The engine chooses it, in the form of [`SandboxId`].
    VmId(u64)
);
id!(
    /// Identifies a network interface. The engine chooses it, in the form of [`SandboxId`].
    InterfaceId(u64)
);

macro_rules! keys {
    ($($name:ident)*) => {
        $(impl crate::store::slot::Slot for $name {
            fn new(number: u32) -> Self {
                Self(number)
            }

            fn number(self) -> u32 {
                self.0
            }
        })*
    };
}

keys!(WorkerId FunctionId AccountId NetworkId);

/// The number of availability zones that the engine can tell apart.
pub const ZONES_MAX: u8 = 16;
