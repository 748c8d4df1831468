//! The Linux interfaces that the crate uses: namespaces, devices, rules, sockets.

pub(crate) mod conntrack;
pub(crate) mod namespace;
pub(crate) mod netlink;
pub(crate) mod nft;
pub(crate) mod tun;
#[cfg(feature = "wireguard")]
pub(crate) mod udp;
