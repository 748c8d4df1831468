//! The terminal of this process, asked for codes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use super::pipe;
use super::thread::{Abandoned, on_thread};
use crate::credentials::Secret;
use crate::world::{BoxFuture, Prompt, Question};

/// The longest answer in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// Asks on the terminal that controls this process (`/dev/tty`, on Windows the console), as the AWS CLI
/// does: standard input and output stay the program's. The answer is not shown while it is typed (on
/// Windows it is).
///
/// A question that is given up reads nothing more. Questions of one process are asked one after the other.
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
    let (input, mut output) = open().map_err(|error| {
        io::Error::new(error.kind(), format!("there is no terminal to ask on: {error}"))
    })?;
    let _hidden = Hidden::new(&input)?;
    output.write_all(question.text.as_bytes())?;
    output.flush()?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        if !pipe::wait(&input, abandoned, None)? {
            continue;
        }
        let mut buffer = [0; 256];
        match (&input).read(&mut buffer)? {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let answer = String::from_utf8(answer)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the answer is not UTF-8"))?;
    Ok(Secret::from(answer.trim()))
}

#[cfg(unix)]
fn open() -> io::Result<(File, File)> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let output = terminal.try_clone()?;
    Ok((terminal, output))
}

#[cfg(not(unix))]
fn open() -> io::Result<(File, File)> {
    let input = File::options().read(true).open("CONIN$")?;
    let output = File::options().write(true).open("CONOUT$")?;
    Ok((input, output))
}

/// Keeps what is typed from being shown; shows it again when dropped.
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
        // What was typed before the question is for somebody else.
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

#[cfg(unix)]
impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        // A terminal that is gone needs no mending.
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
