//! Functions' code: archives, unpacking, and the store.

mod archive;
mod digest;
mod fetch;
mod store;

pub use self::archive::{ENTRIES_MAX, UNPACKED_BYTES_MAX, ZIP_BYTES_MAX, unpack};
pub use self::digest::CodeDigest;
pub use self::fetch::FetchCode;
pub use self::store::{CodeLease, CodeStore};
