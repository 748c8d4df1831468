//! Segmentation that the kernel leaves to the device: the header before each frame. Pure.

/// Bytes of `struct virtio_net_hdr` before each packet.
pub(crate) const HEADER: usize = 10;
