//! Limits of unpacking an image.

/// Limits of unpacking an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageLimits {
    /// Bytes of each layer's uncompressed tar stream.
    pub layer_bytes_max: u64,
    /// Files, folders and links of each layer.
    pub layer_entries_max: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { layer_bytes_max: 8 << 30, layer_entries_max: 500_000 }
    }
}

impl ImageLimits {
    /// Sets the most bytes of a layer.
    #[must_use]
    pub fn with_layer_bytes_max(mut self, bytes: u64) -> Self {
        self.layer_bytes_max = bytes;
        self
    }

    /// Sets the most files, folders and links of a layer.
    #[must_use]
    pub fn with_layer_entries_max(mut self, entries: u64) -> Self {
        self.layer_entries_max = entries;
        self
    }
}
