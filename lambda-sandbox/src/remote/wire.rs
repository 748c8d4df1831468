//! The binary form of values: little-endian numbers, and byte strings preceded by their length.
//! Paths and words are bytes, because they need not be UTF-8. Every length is checked against the
//! bytes that are there before anything is allocated.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::Fault;

/// A value with a binary form.
pub(super) trait Wire: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(from: &mut Reader<'_>) -> Result<Self, Fault>;
}

/// Takes values off bytes of unknown origin.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or(Fault::Garbled("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| Fault::Garbled("it ends early"))
    }

    /// Reads a count of values, each of which has at least one byte.
    fn count(&mut self) -> Result<usize, Fault> {
        let count = u32::read(self)? as usize;
        if count > self.0.len() {
            Err(Fault::Garbled("a count exceeds the bytes"))
        } else {
            Ok(count)
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let count = self.count()?;
        self.take(count)
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(Fault::Garbled("bytes follow its end")) }
    }
}

/// Returns the binary form of a value.
pub(super) fn bytes_of(value: &impl Wire) -> Vec<u8> {
    let mut out = Vec::new();
    value.write(&mut out);
    out
}

/// Returns the value that `bytes` are, and nothing else.
pub(super) fn value_of<T: Wire>(bytes: &[u8]) -> Result<T, Fault> {
    let mut from = Reader::new(bytes);
    let value = T::read(&mut from)?;
    from.end()?;
    Ok(value)
}

macro_rules! numbers {
    ($($kind:ty)*) => {
        $(impl Wire for $kind {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
            fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
                from.array().map(Self::from_le_bytes)
            }
        })*
    };
}

numbers!(u8 u16 u32 u64 i32 f64);

/// Gives structures the form of their fields, one after another. A new field does not compile until
/// it is named here.
macro_rules! structures {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        $(impl $crate::remote::wire::Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($crate::remote::wire::Wire::write($field, out);)*
            }
            fn read(
                from: &mut $crate::remote::wire::Reader<'_>,
            ) -> Result<Self, $crate::remote::Fault> {
                $(let $field = $crate::remote::wire::Wire::read(from)?;)*
                Ok(Self { $($field),* })
            }
        })*
    };
}

/// Gives enumerations the form of a number and the fields of the variant.
macro_rules! variants {
    ($($name:ident {
        $($number:literal => $variant:ident $(($($field:ident),*))? $({ $($named:ident),* })?),* $(,)?
    })*) => {
        $(impl $crate::remote::wire::Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $(($($field),*))? $({ $($named),* })? => {
                        out.push($number);
                        $($($crate::remote::wire::Wire::write($field, out);)*)?
                        $($($crate::remote::wire::Wire::write($named, out);)*)?
                    })*
                }
            }
            fn read(
                from: &mut $crate::remote::wire::Reader<'_>,
            ) -> Result<Self, $crate::remote::Fault> {
                match <u8 as $crate::remote::wire::Wire>::read(from)? {
                    $($number => {
                        $($(let $field = $crate::remote::wire::Wire::read(from)?;)*)?
                        $($(let $named = $crate::remote::wire::Wire::read(from)?;)*)?
                        Ok(Self::$variant $(($($field),*))? $({ $($named),* })?)
                    })*
                    _ => Err($crate::remote::Fault::Garbled(concat!(
                        "no ", stringify!($name), " has this number",
                    ))),
                }
            }
        })*
    };
}

pub(super) use {structures, variants};

impl Wire for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        match u8::read(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Fault::Garbled("a truth value is neither 0 nor 1")),
        }
    }
}

impl Wire for usize {
    fn write(&self, out: &mut Vec<u8>) {
        (*self as u64).write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        Self::try_from(u64::read(from)?).map_err(|_| Fault::Garbled("a size exceeds the memory"))
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // A frame with 4 GiB is refused before it is sent.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).write(out);
    out.extend(bytes);
}

impl Wire for Bytes {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        from.bytes().map(Self::copy_from_slice)
    }
}

impl Wire for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        let text = std::str::from_utf8(from.bytes()?);
        text.map(str::to_owned).map_err(|_| Fault::Garbled("a text is not UTF-8"))
    }
}

impl Wire for OsString {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        from.bytes().map(|bytes| Self::from_vec(bytes.to_vec()))
    }
}

impl Wire for PathBuf {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_os_str().as_bytes(), out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        OsString::read(from).map(Self::from)
    }
}

impl Wire for Duration {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_secs().write(out);
        self.subsec_nanos().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        let (seconds, nanoseconds) = (u64::read(from)?, u32::read(from)?);
        if nanoseconds >= 1_000_000_000 {
            return Err(Fault::Garbled("a second has too many nanoseconds"));
        }
        Ok(Self::new(seconds, nanoseconds))
    }
}

impl Wire for SystemTime {
    /// Times before 1970 become 1970.
    fn write(&self, out: &mut Vec<u8>) {
        self.duration_since(UNIX_EPOCH).unwrap_or_default().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        let since = Duration::read(from)?;
        UNIX_EPOCH.checked_add(since).ok_or(Fault::Garbled("a time is too late"))
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        self.iter().for_each(|value| value.write(out));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        if bool::read(from)? { T::read(from).map(Some) } else { Ok(None) }
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_ok().write(out);
        match self {
            Ok(value) => value.write(out),
            Err(error) => error.write(out),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(if bool::read(from)? { Ok(T::read(from)?) } else { Err(E::read(from)?) })
    }
}

impl Wire for () {
    fn write(&self, _out: &mut Vec<u8>) {}

    fn read(_from: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(())
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

/// Reads values without reserving room for their announced number: a value may be larger in memory
/// than its bytes.
fn values<T: Wire, C: FromIterator<T>>(from: &mut Reader<'_>) -> Result<C, Fault> {
    let count = from.count()?;
    (0..count).map(|_| T::read(from)).collect()
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).write(out);
        self.iter().for_each(|value| value.write(out));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        values(from)
    }
}

impl<T: Wire + Ord> Wire for BTreeSet<T> {
    fn write(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).write(out);
        self.iter().for_each(|value| value.write(out));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        values(from)
    }
}

impl<K: Wire + Ord, V: Wire> Wire for BTreeMap<K, V> {
    fn write(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).write(out);
        for (key, value) in self {
            key.write(out);
            value.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Fault> {
        values::<(K, V), Self>(from)
    }
}
