//! Which image of a layout is meant.

/// Which image of a layout is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageReference<'a> {
    /// The only image.
    #[default]
    Only,
    /// The image with this name (`org.opencontainers.image.ref.name`).
    Name(&'a str),
    /// The image, or the index of images, whose document has this SHA-256, 64 hexadecimal digits.
    Digest(&'a str),
}
