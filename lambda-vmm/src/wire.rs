//! The binary form of configurations, messages and snapshots: little-endian numbers, and byte
//! strings and lists preceded by their length. Every length is checked before it is used.

use crate::Error;

/// A value with a binary form.
pub(crate) trait Wire: Sized {
    fn write(&self, out: &mut Writer);
    fn read(from: &mut Reader<'_>) -> Result<Self, Error>;
}

/// Gives structures the form of their fields, one after another.
macro_rules! structures {
    ($($name:ident { $($field:ident),* $(,)? })*) => { $(
        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut $crate::wire::Writer) {
                let Self { $($field),* } = self;
                $($crate::wire::Wire::write($field, out);)*
            }
            fn read(from: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::Error> {
                $(let $field = $crate::wire::Wire::read(from)?;)*
                Ok(Self { $($field),* })
            }
        }
    )* };
}

/// Gives enumerations the form of a number and the fields of the variant.
macro_rules! variants {
    ($($name:ident {
        $($number:literal => $variant:ident $(($value:ident))? $({ $($field:ident),* })?),* $(,)?
    })*) => { $(
        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut $crate::wire::Writer) {
                match self {
                    $(Self::$variant $(($value))? $({ $($field),* })? => {
                        out.u8($number);
                        $($crate::wire::Wire::write($value, out);)?
                        $($($crate::wire::Wire::write($field, out);)*)?
                    })*
                }
            }
            fn read(from: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::Error> {
                match from.u8()? {
                    $($number => {
                        $(let $value = $crate::wire::Wire::read(from)?;)?
                        $($(let $field = $crate::wire::Wire::read(from)?;)*)?
                        Ok(Self::$variant $(($value))? $({ $($field),* })?)
                    })*
                    _ => Err(from.invalid("its kind is unknown")),
                }
            }
        }
    )* };
}

pub(crate) use {structures, variants};

/// Gives numbers their form, and methods of their names to [`Writer`] and [`Reader`].
macro_rules! numbers {
    ($($kind:ident)*) => { $(
        impl Wire for $kind {
            fn write(&self, out: &mut Writer) {
                out.$kind(*self);
            }
            fn read(from: &mut Reader<'_>) -> Result<Self, Error> {
                from.$kind()
            }
        }
        impl Writer {
            pub(crate) fn $kind(&mut self, value: $kind) -> &mut Self {
                self.raw(&value.to_le_bytes())
            }
        }
        impl Reader<'_> {
            pub(crate) fn $kind(&mut self) -> Result<$kind, Error> {
                let (part, rest) =
                    self.rest.split_first_chunk().ok_or_else(|| self.truncated())?;
                self.rest = rest;
                Ok($kind::from_le_bytes(*part))
            }
        }
    )* };
}

numbers!(u8 u16 u32 u64);

impl Wire for bool {
    fn write(&self, out: &mut Writer) {
        out.u8(u8::from(*self));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Error> {
        match from.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(from.invalid("a truth value is neither 0 nor 1")),
        }
    }
}

/// What is longer than [`TEXT_BYTES_MAX`] is cut, between characters.
impl Wire for String {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.as_bytes()[..self.floor_char_boundary(TEXT_BYTES_MAX)]);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Error> {
        let text = std::str::from_utf8(from.bytes(TEXT_BYTES_MAX)?);
        Ok(text.map_err(|_| from.invalid("a text is not UTF-8"))?.to_owned())
    }
}

impl<T: Wire, const N: usize> Wire for [T; N] {
    fn write(&self, out: &mut Writer) {
        self.iter().for_each(|value| value.write(out));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Error> {
        let all: Vec<T> = (0..N).map(|_| T::read(from)).collect::<Result<_, _>>()?;
        all.try_into().map_err(|_| from.truncated())
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Writer) {
        self.is_some().write(out);
        self.iter().for_each(|value| value.write(out));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Error> {
        if bool::read(from)? { T::read(from).map(Some) } else { Ok(None) }
    }
}

/// A list takes memory for values that are there, whatever its length says.
impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Writer) {
        out.u32(u32::try_from(self.len()).unwrap_or(u32::MAX));
        self.iter().for_each(|value| value.write(out));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Error> {
        (0..from.u32()?).map(|_| T::read(from)).collect()
    }
}

const TEXT_BYTES_MAX: usize = 4096;

/// Appends values to a byte string.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Appends fixed-size data, whose length the reader knows.
    pub(crate) fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend(value);
        self
    }

    /// Appends a length and the data. Data of 4 GiB or more is cut, which no caller has.
    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.u32(length);
        self.0.extend(value.iter().take(length as usize));
        self
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Takes values off a byte string of unknown origin.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// `what` names the input in errors.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (part, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(part)
    }

    /// Takes a length and as many bytes, at most `max`.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'a [u8], Error> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(self.invalid("a length exceeds its limit"));
        }
        self.raw(length)
    }

    /// Checks that nothing follows.
    pub(crate) fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.invalid("data follows its end")) }
    }

    pub(crate) fn invalid(&self, why: &'static str) -> Error {
        Error::Invalid { what: self.what, why: why.to_owned() }
    }

    fn truncated(&self) -> Error {
        self.invalid("it ends early")
    }
}
