//! The state file of a snapshot: a magic number, a version, the length, the state, and a checksum
//! over all of it. The memory is a file of its own, as long as the guest's memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use kvm_bindings::{kvm_clock_data, kvm_cpuid_entry2, kvm_irqchip};

use crate::wire::{Reader, Wire, Writer, structures};
use crate::{Config, During, Error, cpu, mmio};

/// The state of a machine without its memory.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) config: Config,
    /// See [`cpu::identity`].
    pub(crate) identity: Vec<u8>,
    pub(crate) features: Vec<kvm_cpuid_entry2>,
    pub(crate) clock: kvm_clock_data,
    /// Two 8259 and one I/O APIC.
    pub(crate) chips: [kvm_irqchip; 3],
    pub(crate) vcpus: Vec<cpu::State>,
    pub(crate) devices: Vec<mmio::State>,
}

structures! {
    Saved { config, identity, features, clock, chips, vcpus, devices }
}

impl Saved {
    /// Returns the content of a state file.
    pub(crate) fn seal(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.write(&mut out);
        seal(&out.finish())
    }

    /// Reads a state file and checks it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it is truncated, damaged, too long, or of another version.
    pub(crate) fn open(file: &File) -> Result<Self, Error> {
        let length = file.metadata().during("read the state file's length")?.len();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > FILE_BYTES_MAX {
            return Err(Error::invalid("the snapshot", "it is longer than 16 MiB"));
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0).during("read the state file")?;
        let mut from = Reader::new(unseal(&bytes)?, "the snapshot");
        let saved = Self::read(&mut from)?;
        from.end()?;
        Ok(saved)
    }
}

/// Adds magic number, version, length and checksum.
pub(crate) fn seal(state: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(MAGIC).u32(VERSION).bytes(state);
    let mut bytes = out.finish();
    let sum = crc32fast::hash(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// Checks them, and returns the state between them.
pub(crate) fn unseal(bytes: &[u8]) -> Result<&[u8], Error> {
    let mut from = Reader::new(bytes, "the snapshot");
    if from.raw(MAGIC.len())? != MAGIC {
        return Err(from.invalid("it is no state file"));
    }
    let version = from.u32()?;
    if version != VERSION {
        let why = format!("it has version {version}, and this program reads {VERSION}");
        return Err(Error::invalid("the snapshot", why));
    }
    let state = from.bytes(FILE_BYTES_MAX)?;
    let sum = from.u32()?;
    from.end()?;
    if crc32fast::hash(&bytes[..bytes.len() - size_of::<u32>()]) != sum {
        return Err(from.invalid("its checksum is wrong"));
    }
    Ok(state)
}

const MAGIC: &[u8; 8] = b"lambdavm";
/// Raised with every change of what the file contains.
const VERSION: u32 = 3;
const FILE_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_truncation_and_every_changed_bit_is_noticed() {
        let sealed = seal(b"the state of a machine");
        assert_eq!(unseal(&sealed).unwrap(), b"the state of a machine");
        for length in 0..sealed.len() {
            assert!(unseal(&sealed[..length]).is_err(), "{length} bytes");
        }
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&changed).is_err(), "bit {bit}");
        }
        let mut longer = sealed;
        longer.push(0);
        assert!(unseal(&longer).is_err());
    }

    #[test]
    fn another_version_is_named() {
        let mut sealed = seal(b"state");
        sealed[8] = 9;
        let error = unseal(&sealed).unwrap_err().to_string();
        assert!(error.contains("it has version 9"), "{error}");
    }
}
