//! Names of things: newtypes that cannot be mixed up.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub $number);
    };
}

id!(
    /// Names a worker; given by the driver, as an index into a table of its own: below
    /// [`Config::workers_max`](crate::Config::workers_max), used again only when the worker is gone.
    WorkerId(u32)
);
id!(
    /// Names a function; given by the driver, as an index into a table of its own: below
    /// [`Config::functions_max`](crate::Config::functions_max), used again only when
    /// [`Engine::knows_function`](crate::Engine::knows_function) denies it.
    FunctionId(u32)
);
id!(
    /// Names a customer; given by the driver: below [`Config::accounts_max`](crate::Config::accounts_max).
    AccountId(u32)
);
id!(
    /// Names a customer's network (VPC subnets and security groups); given by the driver: below
    /// [`Config::networks_max`](crate::Config::networks_max).
    NetworkId(u32)
);
id!(
    /// Names an availability zone; given by the driver: below [`ZONES_MAX`].
    Zone(u8)
);
id!(
    /// Names an invocation; the driver's own token. The engine hands it back and compares it with nothing but
    /// what runs in the sandbox that an end is told of.
    InvocationId(u64)
);
id!(
    /// Names a sandbox; given by the engine: a slot, and in the upper half how often the slot was used. Never
    /// given twice.
    SandboxId(u64)
);
id!(
    /// Names a VM; given by the engine as a sandbox's is.
    VmId(u64)
);
id!(
    /// Names a network interface; given by the engine as a sandbox's is.
    InterfaceId(u64)
);

/// Most availability zones.
pub const ZONES_MAX: u8 = 16;
