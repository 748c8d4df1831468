//! The binary form of configurations, messages and snapshots: little-endian numbers, and byte
//! strings preceded by their length. Every length is checked before it is used.

use crate::Error;

/// Appends values to a byte string.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

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

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (part, rest) = self.rest.split_first_chunk().ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(*part)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes a length and as many bytes, at most `max`.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'a [u8], Error> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(self.invalid("a length exceeds its limit"));
        }
        self.raw(length)
    }

    pub(crate) fn text(&mut self, max: usize) -> Result<String, Error> {
        let text = std::str::from_utf8(self.bytes(max)?);
        Ok(text.map_err(|_| self.invalid("a text is not UTF-8"))?.to_owned())
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
