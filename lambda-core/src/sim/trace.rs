//! Traces of invocations: for each function its invocations by minute, its durations and its
//! memory.
//!
//! The CSV form is that of the Azure Functions trace of 2019 (Shahrad et al., USENIX ATC 2020):
//! `invocations`, `durations` and `memory`, joined by the function's hash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The usual kind of event that invokes a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Trigger {
    /// A request over HTTP.
    Http,
    /// A schedule.
    Timer,
    /// Messages of a queue.
    Queue,
    /// Events of a stream or an event bus.
    Event,
    /// Changes of objects in a store.
    Storage,
    /// A step of a workflow.
    Orchestration,
    /// Something else, or unknown.
    #[default]
    Other,
}

/// Functions and their invocations by minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The name of the trace for reports.
    pub name: String,
    /// The functions; the position of one is its id in a simulation.
    pub functions: Vec<TraceFunction>,
    /// The number of minutes.
    pub minutes: usize,
}

/// A function of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceFunction {
    /// The owner, numbered in order of appearance.
    pub owner: u32,
    /// The kind of event that invokes it.
    pub trigger: Trigger,
    /// Memory in MiB, at least 1.
    pub memory_mib: u32,
    /// The number of invocations in each minute.
    pub counts: Vec<u32>,
    /// The durations at the percentiles 0, 1, 25, 50, 75, 99 and 100, in milliseconds, ascending.
    pub durations_ms: [u32; 7],
}

/// The percentiles of [`TraceFunction::durations_ms`].
pub const PERCENTILES: [u32; 7] = [0, 1, 25, 50, 75, 99, 100];

/// Why a trace cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceError {
    /// The input with the fault: `invocations`, `durations` or `memory`.
    pub part: &'static str,
    /// The line with the fault, from 1.
    pub line: usize,
    /// The fault, in words.
    pub reason: String,
}

impl std::fmt::Display for TraceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, line {}: {}", self.part, self.line, self.reason)
    }
}

impl std::error::Error for TraceError {}

/// The longest line that is read, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// The most functions that are read.
const FUNCTIONS_MAX: usize = 1 << 20;
/// The duration and the memory of a function for which the trace has none: the medians of the Azure
/// trace.
const DURATION_MS: u32 = 600;
const MEMORY_MIB: u32 = 170;

impl Trace {
    /// Reads a trace from the text of its three CSV files.
    ///
    /// # Errors
    ///
    /// Returns [`TraceError`] for missing columns, values that are not a number or negative, lines
    /// with the wrong number of fields, duplicate functions, and traces without functions or
    /// minutes.
    pub fn parse(
        name: impl Into<String>,
        invocations: &str,
        durations: &str,
        memory: &str,
    ) -> Result<Self, TraceError> {
        let mut trace = Self { name: name.into(), ..Self::default() };
        let mut owners = BTreeMap::new();
        let mut by_hash = BTreeMap::new();
        let mut table = Table::new("invocations", invocations)?;
        let (owner, function) = (table.column("HashOwner")?, table.column("HashFunction")?);
        let trigger = table.column("Trigger")?;
        let minutes: Vec<_> =
            (0..table.header.len()).filter(|at| table.header[*at].parse::<u32>().is_ok()).collect();
        if minutes.is_empty() {
            return Err(table.error("no column for a minute".to_owned()));
        }
        trace.minutes = minutes.len();
        while let Some(fields) = table.next()? {
            let next = u32::try_from(owners.len()).unwrap_or(u32::MAX);
            let owner = *owners.entry(fields[owner]).or_insert(next);
            if by_hash.insert(fields[function], trace.functions.len()).is_some() {
                return Err(table.error(format!("function {} a second time", fields[function])));
            }
            if trace.functions.len() >= FUNCTIONS_MAX {
                return Err(table.error(format!("more than {FUNCTIONS_MAX} functions")));
            }
            let counts = minutes.iter().map(|at| table.number(fields[*at]));
            trace.functions.push(TraceFunction {
                owner,
                trigger: trigger_of(fields[trigger]),
                memory_mib: MEMORY_MIB,
                counts: counts.collect::<Result<_, _>>()?,
                durations_ms: [DURATION_MS; 7],
            });
        }
        if trace.functions.is_empty() {
            return Err(table.error("no function".to_owned()));
        }
        let mut table = Table::new("durations", durations)?;
        let function = table.column("HashFunction")?;
        let mut columns = [0; 7];
        for (column, percentile) in columns.iter_mut().zip(PERCENTILES) {
            *column = table.column(&format!("percentile_Average_{percentile}"))?;
        }
        while let Some(fields) = table.next()? {
            let Some(at) = by_hash.get(fields[function]) else { continue };
            let mut least = 0;
            for (to, column) in trace.functions[*at].durations_ms.iter_mut().zip(columns) {
                // Percentiles of averages may cross by rounding.
                least = table.number(fields[column])?.max(least);
                *to = least;
            }
        }
        let mut table = Table::new("memory", memory)?;
        let (function, average) =
            (table.column("HashFunction")?, table.column("AverageAllocatedMb")?);
        while let Some(fields) = table.next()? {
            if let Some(at) = by_hash.get(fields[function]) {
                trace.functions[*at].memory_mib = table.number(fields[average])?.max(1);
            }
        }
        Ok(trace)
    }

    /// Returns the number of invocations in a range of minutes.
    #[must_use]
    pub fn invocations(&self, minutes: std::ops::Range<usize>) -> u64 {
        let of = |function: &TraceFunction| -> u64 {
            let counts = function.counts.get(minutes.clone()).unwrap_or_default();
            counts.iter().map(|count| u64::from(*count)).sum()
        };
        self.functions.iter().map(of).sum()
    }
}

impl TraceFunction {
    /// Returns the duration at a quantile, in microseconds, by linear interpolation between the
    /// percentiles. `chance` / 2^32 is the quantile.
    #[must_use]
    pub fn duration_us(&self, chance: u32) -> u64 {
        let share = u64::from(chance) * 100;
        let above = PERCENTILES.iter().position(|it| u64::from(*it) << 32 > share).unwrap_or(6);
        let (low, high) = (above.saturating_sub(1), above);
        let from = u64::from(PERCENTILES[low]) << 32;
        let width = (u64::from(PERCENTILES[high]) << 32).saturating_sub(from).max(1);
        let (least, most) = (u64::from(self.durations_ms[low]), u64::from(self.durations_ms[high]));
        let part = u128::from((most - least) * 1000) * u128::from(share - from) / u128::from(width);
        least * 1000 + u64::try_from(part).unwrap_or(0)
    }

    /// Returns the mean duration, in microseconds.
    #[must_use]
    pub fn duration_mean_us(&self) -> u64 {
        let mut doubled = 0;
        for at in 1..7 {
            let weight = u64::from(PERCENTILES[at] - PERCENTILES[at - 1]);
            let ends = u64::from(self.durations_ms[at]) + u64::from(self.durations_ms[at - 1]);
            doubled += weight * ends * 1000;
        }
        doubled / 200
    }
}

fn trigger_of(word: &str) -> Trigger {
    match word {
        "http" => Trigger::Http,
        "timer" => Trigger::Timer,
        "queue" => Trigger::Queue,
        "event" => Trigger::Event,
        "storage" => Trigger::Storage,
        "orchestration" => Trigger::Orchestration,
        _ => Trigger::Other,
    }
}

/// A CSV file without quoting, as the trace's files are.
struct Table<'a> {
    part: &'static str,
    header: Vec<&'a str>,
    lines: std::str::Lines<'a>,
    line: usize,
}

impl<'a> Table<'a> {
    fn new(part: &'static str, text: &'a str) -> Result<Self, TraceError> {
        let mut table = Self { part, header: Vec::new(), lines: text.lines(), line: 0 };
        let Some(header) = table.next()? else {
            return Err(table.error("it is empty".to_owned()));
        };
        table.header = header;
        Ok(table)
    }

    fn error(&self, reason: String) -> TraceError {
        TraceError { part: self.part, line: self.line, reason }
    }

    fn column(&self, name: &str) -> Result<usize, TraceError> {
        let at = self.header.iter().position(|it| *it == name);
        at.ok_or_else(|| self.error(format!("no column {name}")))
    }

    fn next(&mut self) -> Result<Option<Vec<&'a str>>, TraceError> {
        self.line += 1;
        let Some(line) = self.lines.next() else { return Ok(None) };
        if line.len() > LINE_BYTES_MAX {
            return Err(self.error(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        if !self.header.is_empty() && fields.len() != self.header.len() {
            let (have, want) = (fields.len(), self.header.len());
            return Err(self.error(format!("{have} fields where the header has {want}")));
        }
        Ok(Some(fields))
    }

    /// Parses a non-negative number and rounds it to an integer.
    fn number(&self, field: &str) -> Result<u32, TraceError> {
        let number: f64 =
            field.parse().map_err(|_none| self.error(format!("{field:?} is no number")))?;
        if !(0.0..=f64::from(u32::MAX)).contains(&number) {
            return Err(self.error(format!("{field} is negative or too large")));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        Ok(number.round() as u32)
    }
}
