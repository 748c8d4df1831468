//! Runs other programs in the sandbox in addition to its own, at the host's request.
//!
//! The host sends `x` and a number, with four descriptors: a block that describes the program, and
//! its three standard streams. The block is an array of 8-byte words, followed by NUL-terminated
//! texts. The words are: the number of the words that follow, then offsets of texts from the start
//! of the block: the working directory, the arguments, 0, the environment, 0. `y` and a number
//! kills that program.

use crate::protocol::{EXECS_MAX, STEP_EXEC, TELL_EXEC_ENDED, TELL_EXEC_FAILED};
use crate::start::{Program, start};
use crate::{CLOSE, KILL, call, tell};

const LSEEK: usize = 8;
const MMAP: usize = 9;
const MUNMAP: usize = 11;

/// The descriptors of one request: the block and three streams.
pub(crate) const FILES: usize = 4;
const E2BIG: u32 = 7;
const EINVAL: u32 = 22;

/// The running programs: the host's number and the pid. A pid of 0 marks a free entry.
pub(crate) struct Execs([(u32, usize); EXECS_MAX]);

impl Execs {
    pub(crate) const NONE: Self = Self([(0, 0); EXECS_MAX]);

    /// Starts the program of a request.
    pub(crate) fn begin(&mut self, number: u32, files: &[u32; FILES]) {
        let outcome = match self.0.iter_mut().find(|(_, pid)| *pid == 0) {
            Some(free) => launch(number, files).map(|pid| *free = (number, pid)),
            None => Err(E2BIG),
        };
        for file in files {
            call(CLOSE, *file as usize, 0, 0, 0, 0);
        }
        if let Err(errno) = outcome {
            tell(TELL_EXEC_FAILED, number, errno);
        }
    }

    pub(crate) fn kill(&self, number: u32) {
        if let Some((_, pid)) = self.0.iter().find(|(it, pid)| *it == number && *pid != 0) {
            call(KILL, *pid, 9, 0, 0, 0);
        }
    }

    /// Reports the end of a process to the host, if it is one of these programs.
    pub(crate) fn ended(&mut self, pid: usize, status: u32) {
        if let Some(found) = self.0.iter_mut().find(|(_, it)| *it == pid) {
            tell(TELL_EXEC_ENDED, found.0, status);
            *found = (0, 0);
        }
    }
}

/// Maps a private copy of the block, turns its offsets into addresses, and starts the program.
fn launch(number: u32, files: &[u32; FILES]) -> Result<usize, u32> {
    const END: usize = 2;
    const READ_AND_WRITE: usize = 3;
    const PRIVATE: usize = 2;
    let block = files[0] as usize;
    let answer = |result: isize| {
        if result < 0 { Err(result.unsigned_abs() as u32) } else { Ok(result as usize) }
    };
    let length = answer(call(LSEEK, block, 0, END, 0, 0))?;
    if length < 8 {
        return Err(EINVAL);
    }
    let base = answer(call_six(MMAP, [0, length, READ_AND_WRITE, PRIVATE, block, 0]))?;
    // SAFETY: the mapping is `length` bytes from `base` on, private, page-aligned and nobody
    // else's; it is at least a word.
    let words = unsafe { core::slice::from_raw_parts_mut(base as *mut usize, length / 8) };
    let result = describe(words, base, length).and_then(|(folder, arguments, environment)| {
        let program = words.get(arguments).copied().ok_or(EINVAL)?;
        let streams = Some([files[1], files[2], files[3]]);
        let program = Program {
            step: STEP_EXEC,
            number,
            program,
            arguments: base + arguments * 8,
            environment: base + environment * 8,
            folder,
            streams,
            passed: 0,
            terminal: false,
        };
        answer(start(&program))
    });
    call(MUNMAP, base, length, 0, 0, 0);
    result
}

/// Turns the offsets into addresses. Returns the address of the working directory, and the indices
/// of the words at which the arguments and the environment begin.
fn describe(words: &mut [usize], base: usize, length: usize) -> Result<(usize, usize, usize), u32> {
    let count = words.first().copied().filter(|it| *it < words.len()).ok_or(EINVAL)?;
    let mut environment = 0;
    for (place, word) in words.iter_mut().enumerate().take(count + 1).skip(1) {
        match *word {
            0 if environment == 0 => environment = place + 1,
            0 => {}
            offset if offset < length => *word = base + offset,
            _ => return Err(EINVAL),
        }
    }
    let folder = words.get(1).copied().ok_or(EINVAL)?;
    if environment < 4 || environment > count { Err(EINVAL) } else { Ok((folder, 2, environment)) }
}

fn call_six(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: a new private mapping touches no memory of ours; rcx and r11 are named as lost.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}
