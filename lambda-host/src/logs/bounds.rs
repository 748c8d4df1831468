//! How much log is kept.

/// How much log is kept. Beyond it the oldest file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogBounds {
    /// Bytes of one group's files.
    pub group_bytes_max: u64,
    /// Bytes of all files together.
    pub bytes_max: u64,
    /// Bytes of a file, after which a stream goes on in another.
    pub file_bytes_max: u64,
    /// Files of one group.
    pub group_files_max: usize,
}

impl Default for LogBounds {
    /// 32 MiB and 2,000 files a group, 1 GiB together, files of 1 MiB.
    fn default() -> Self {
        Self {
            group_bytes_max: 32 << 20,
            bytes_max: 1 << 30,
            file_bytes_max: 1 << 20,
            group_files_max: 2000,
        }
    }
}
