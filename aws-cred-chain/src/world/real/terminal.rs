//! Asks for MFA codes on the terminal of this process.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use super::pipe;
use super::thread::{Abandoned, on_thread};
use crate::credentials::Secret;
use crate::world::{BoxFuture, Prompt, Question};

/// The longest answer in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// Asks on the controlling terminal of this process (`/dev/tty`; on Windows the console), as the
/// AWS CLI does. Standard input and output remain for the program. The answer is not echoed, except
/// on Windows.
///
/// Without a terminal, as in a service, it writes the question to standard error and reads one line
/// of standard input, and no byte after it. The AWS CLI does the same.
///
/// When the future of a question is dropped, no more input is read. The questions of one process
/// are asked one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct TerminalPrompt;

impl Prompt for TerminalPrompt {
    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Secret>> {
        Box::pin(async move { on_thread(move |abandoned| ask(&question, abandoned)).await? })
    }
}

fn ask(question: &Question, abandoned: &Abandoned) -> io::Result<Secret> {
    static ASKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = loop {
        match ASKING.try_lock() {
            Ok(guard) => break guard,
            Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if abandoned.is_set() => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let terminal = open();
    let (input, mut output): (File, Box<dyn Write>) = match &terminal {
        Ok(terminal) => (terminal.input.try_clone()?, Box::new(&terminal.output)),
        Err(_) => (standard_input()?, Box::new(io::stderr())),
    };
    let _hidden = terminal.as_ref().ok().map(|it| Hidden::new(&it.input)).transpose()?;
    output.write_all(question.text.as_bytes())?;
    output.flush()?;
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        if !pipe::wait(&input, abandoned, None)? {
            continue;
        }
        // Byte by byte, so that input after the line stays unread.
        let mut byte = [0];
        match (&input).read(&mut byte)? {
            0 => break,
            _ => answer.extend_from_slice(&byte),
        }
    }
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let answer = String::from_utf8(answer)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the answer is not UTF-8"))?;
    Ok(Secret::from(answer.trim()))
}

struct Terminal {
    input: File,
    output: File,
}

#[cfg(unix)]
fn open() -> io::Result<Terminal> {
    let input = File::options().read(true).write(true).open("/dev/tty")?;
    let output = input.try_clone()?;
    Ok(Terminal { input, output })
}

#[cfg(not(unix))]
fn open() -> io::Result<Terminal> {
    let input = File::options().read(true).open("CONIN$")?;
    let output = File::options().write(true).open("CONOUT$")?;
    Ok(Terminal { input, output })
}

/// Returns standard input without the buffer of this process.
#[cfg(unix)]
fn standard_input() -> io::Result<File> {
    use std::os::fd::AsFd as _;
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

#[cfg(windows)]
fn standard_input() -> io::Result<File> {
    use std::os::windows::io::AsHandle as _;
    Ok(File::from(io::stdin().as_handle().try_clone_to_owned()?))
}

/// On platforms such as WebAssembly nobody can be asked.
#[cfg(not(any(unix, windows)))]
fn standard_input() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Turns off the terminal's echo, and restores it when dropped.
#[cfg(unix)]
struct Hidden<'a> {
    terminal: &'a File,
    before: rustix::termios::Termios,
}

#[cfg(unix)]
impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON);
        // Input that was typed before the question is discarded, because it is not an answer.
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

#[cfg(unix)]
impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        // If the terminal is gone, there is nothing to restore.
        let _gone = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

#[cfg(not(unix))]
struct Hidden;

#[cfg(not(unix))]
impl Hidden {
    #[expect(clippy::unnecessary_wraps, reason = "as on Unix, where it can fail")]
    fn new(_: &File) -> io::Result<Self> {
        Ok(Self)
    }
}
