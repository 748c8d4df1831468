//! Steps of a driver that breaks the rules, for property tests and fuzzing.

use super::{Driver, MEMORY_BYTES, RINGS};

/// One step of a hostile driver.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sets the device up by the rules.
    SetUp,
    Register(u64, u32),
    /// Overwrites memory.
    Memory(u64, Vec<u8>),
    /// Sets a descriptor: queue, index, address, length, flags, next.
    Descriptor(u8, u16, u64, u32, u16, u16),
    /// Sets the available index of a queue.
    Available(u8, u16),
    Notify(u16),
    Ready(u32),
    Resume,
}

/// Carries out one step.
pub(crate) fn carry_out(driver: &mut Driver, step: Step) {
    let put = |driver: &Driver, at: u64, bytes: &[u8]| {
        // The driver's own addresses may lie outside of memory, too.
        if at.checked_add(bytes.len() as u64).is_some_and(|end| end <= MEMORY_BYTES) {
            driver.put(at, bytes);
        }
    };
    match step {
        Step::SetUp => driver.set_up(),
        Step::Register(register, value) => {
            driver.write(register, value);
        }
        Step::Memory(at, bytes) => put(driver, at, &bytes),
        Step::Descriptor(queue, index, address, length, flags, next) => {
            let at = RINGS + u64::from(queue) * 0x1000 + u64::from(index % 64) * 16;
            let mut bytes = address.to_le_bytes().to_vec();
            bytes.extend(length.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(next.to_le_bytes());
            put(driver, at, &bytes);
        }
        Step::Available(queue, index) => {
            let at = RINGS + u64::from(queue) * 0x1000 + 0x402;
            put(driver, at, &index.to_le_bytes());
        }
        Step::Notify(queue) => {
            if queue < driver.transport.queue_count() {
                driver.transport.notify(queue);
            }
        }
        Step::Ready(token) => {
            driver.transport.ready(token);
        }
        Step::Resume => driver.transport.resume(),
    }
}

#[cfg(fuzzing)]
impl Step {
    /// Makes steps of bytes, of which each step takes some.
    pub(crate) fn all_of(mut bytes: &[u8]) -> Vec<Self> {
        let mut steps = Vec::new();
        while let Some((kind, rest)) = bytes.split_first() {
            bytes = rest;
            let mut number = |length: usize| {
                let (taken, rest) = bytes.split_at(length.min(bytes.len()));
                bytes = rest;
                let mut number = [0; 8];
                number[..taken.len()].copy_from_slice(taken);
                u64::from_le_bytes(number)
            };
            let low = |number: u64| u16::try_from(number & 0xffff).unwrap_or_default();
            let word = |number: u64| u32::try_from(number & 0xffff_ffff).unwrap_or_default();
            let queue = |number: u64| u8::try_from(number % 3).unwrap_or_default();
            steps.push(match kind % 9 {
                0 => Self::SetUp,
                1 => Self::Register(number(1) * 4, word(number(4))),
                2 => Self::Register(number(8), word(number(4))),
                3 => Self::Memory(RINGS + number(2), number(8).to_le_bytes().to_vec()),
                4 => Self::Descriptor(
                    queue(number(1)),
                    low(number(1)),
                    number(3),
                    word(number(3)),
                    low(number(1)),
                    low(number(1)),
                ),
                5 => Self::Descriptor(
                    queue(number(1)),
                    low(number(2)),
                    number(8),
                    word(number(4)),
                    low(number(2)),
                    low(number(2)),
                ),
                6 => Self::Available(queue(number(1)), low(number(2))),
                7 => Self::Notify(low(number(1)) % 4),
                _ => match number(1) % 4 {
                    0 => Self::Resume,
                    token => Self::Ready(word(token) - 1),
                },
            });
        }
        steps
    }
}
