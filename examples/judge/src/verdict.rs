//! Verdicts, and how they follow from the end of a run.

use std::fmt;
use std::time::Duration;

use lambda_sandbox::{Completed, EndedBy, Exit};

/// The verdict on a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    WrongAnswer,
    Time,
    Memory,
    Output,
    Crash,
    Security,
    DoesNotCompile,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Accepted => "accepted",
            Self::WrongAnswer => "wrong answer",
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Crash => "crash",
            Self::Security => "security",
            Self::DoesNotCompile => "does not build",
        })
    }
}

/// A submission's line in the table.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// The largest processor time of any test.
    pub(crate) cpu_time: Duration,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) note: String,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpu, memory) = (self.cpu_time.as_millis(), self.memory_peak_bytes >> 20);
        write!(f, "{:<14} {cpu:>8} {memory:>9}  {}", self.verdict, self.note)
    }
}

/// Returns the verdict of one test.
pub(crate) fn of_test(done: &Completed, expected: &[u8]) -> Verdict {
    match (done.finished.ended_by, done.finished.exit) {
        (EndedBy::WallTime | EndedBy::ProcessorTime, _) => Verdict::Time,
        (EndedBy::Memory | EndedBy::KernelMemory, _) => Verdict::Memory,
        (EndedBy::Output, _) => Verdict::Output,
        (_, Exit::Signal(SIGSYS)) => Verdict::Security,
        // With control groups of version 1, the memory limit may kill a child and leave the
        // program, which then fails.
        (_, exit) if exit != Exit::Status(0) && done.finished.out_of_memory => Verdict::Memory,
        (EndedBy::Program, Exit::Status(0)) if same(&done.stdout, expected) => Verdict::Accepted,
        (EndedBy::Program, Exit::Status(0)) => Verdict::WrongAnswer,
        _ => Verdict::Crash,
    }
}

/// Compares two outputs. Spaces at the end of lines and empty lines at the end do not count.
fn same(seen: &[u8], expected: &[u8]) -> bool {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let lines = text.trim_ascii_end().split(|byte| *byte == b'\n');
        lines.map(|line| line.trim_ascii_end().to_vec()).collect()
    };
    lines(seen) == lines(expected)
}

/// The signal by which the profile `SystemCalls::Tripwire` kills.
const SIGSYS: i32 = 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_at_ends_does_not_count() {
        assert!(same(b"1 2 \n3\n\n", b"1 2\n3"));
        assert!(same(b"", b"\n"));
        assert!(!same(b"1\n\n2", b"1\n2"));
        assert!(!same(b" 1", b"1"));
    }
}
