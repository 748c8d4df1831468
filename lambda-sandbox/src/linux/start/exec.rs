//! Runs other programs in a living sandbox. The sandbox's init starts them, so the same
//! restrictions hold for them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};
use tokio::sync::oneshot;

use crate::budget::Budget;
use crate::capture::Capture;
use crate::linux::protocol::{EXECS_MAX, SAY_EXEC, SAY_EXEC_KILL};
use crate::linux::start::wires;
use crate::linux::sys;
use crate::log::LogSink;
use crate::supervise::feed::Feed;
use crate::supervise::output::Output;
use crate::supervise::pipe::{self, Pipe};
use crate::{Error, Exec, Executed, Exit};

/// The programs that run in one sandbox in addition to its own, by number.
#[derive(Debug, Default)]
pub(in crate::linux) struct Execs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u32,
    waiting: BTreeMap<u32, oneshot::Sender<Result<Exit, i32>>>,
    gone: bool,
}

impl Execs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports to the caller of [`run`] that its program has ended, or the errno of the failed
    /// start.
    pub(in crate::linux) fn tell(&self, number: u32, end: Result<Exit, i32>) {
        if let Some(waiting) = self.state().waiting.remove(&number) {
            // The caller may have dropped its future.
            let _gone = waiting.send(end);
        }
    }

    /// Reports to all callers that the sandbox has ended.
    pub(in crate::linux) fn end(&self) {
        let mut state = self.state();
        state.gone = true;
        state.waiting.clear();
    }
}

/// A running program. On drop it is killed, unless it has ended.
struct Running {
    execs: Arc<Execs>,
    socket: Arc<OwnedFd>,
    number: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.execs.state().waiting.remove(&self.number).is_some() {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            // If the init has ended, the program has ended with it.
            let _gone = send(self.socket.as_raw_fd(), &word(SAY_EXEC_KILL, self.number), flags);
        }
    }
}

/// Runs a program in the sandbox whose init is at `socket`, and waits for its end.
pub(in crate::linux) async fn run(
    execs: Arc<Execs>,
    socket: Arc<OwnedFd>,
    exec: Exec,
) -> Result<Executed, Error> {
    let block = sys::sealed_file(c"sandbox-exec", &block(&exec))
        .map_err(|source| Error::step("making a file in memory", source))?;
    let (stdout, stdout_inside) = wires::pipe()?;
    let (stderr, stderr_inside) = wires::pipe()?;
    let (stdin_inside, stdin) = wires::input()?;
    // Capture starts before the program, so that output is read before the end is reported.
    let capture = Arc::new(Capture::default());
    let sink = Arc::clone(&capture) as Arc<dyn LogSink>;
    // The program has a budget of its own, that of a sandbox with one processor.
    let budget = Arc::new(Budget::new(1.0));
    let outlets = (Arc::new(Pipe::new(stdout)?), Arc::new(Pipe::new(stderr)?));
    let output = Output::start(outlets.0, outlets.1, &sink, &budget);
    let (told, end) = oneshot::channel();
    let number = {
        let mut state = execs.state();
        if state.gone {
            return Err(Error::Ended);
        }
        if state.waiting.len() >= EXECS_MAX {
            return Err(Error::Exhausted {
                what: "programs beside a sandbox's own",
                max: EXECS_MAX,
            });
        }
        state.last = state.last.checked_add(1).unwrap_or(1);
        let number = state.last;
        state.waiting.insert(number, told);
        number
    };
    let running = Running { execs: Arc::clone(&execs), socket: Arc::clone(&socket), number };
    let files = [&block, &stdin_inside, &stdout_inside, &stderr_inside].map(|it| it.as_raw_fd());
    let word = word(SAY_EXEC, number);
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let rights = [ControlMessage::ScmRights(&files)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&word)], &rights, flags, None)
        .map_err(|errno| Error::step("asking the init to start a program", errno))?;
    drop((block, stdin_inside, stdout_inside, stderr_inside));
    let feed = Feed::start(Box::new(pipe::input(stdin)?), exec.stdin)?;
    let exit = match end.await {
        Ok(Ok(exit)) => exit,
        Ok(Err(errno)) => {
            let source = std::io::Error::from_raw_os_error(errno);
            return Err(Error::failed("starting a program beside", &exec.command[0], source));
        }
        Err(_gone) => return Err(Error::Ended),
    };
    output.drain();
    drop((running, feed, output));
    let (stdout, stderr, truncated) = capture.take();
    Ok(Executed::new(exit).with_output(stdout, stderr, truncated))
}

/// Returns a message to the init: a letter in the first byte, and a number in the last four of
/// eight.
fn word(letter: u8, number: u32) -> [u8; 8] {
    let mut word = [letter, 0, 0, 0, 0, 0, 0, 0];
    word[4..].copy_from_slice(&number.to_ne_bytes());
    word
}

/// Encodes a program for the init. Words of 8 bytes come first: the number of the words that
/// follow; then offsets of texts: the working directory, the arguments, 0, the environment, 0. The
/// NUL-terminated texts follow. Offsets count from the start of the block.
fn block(exec: &Exec) -> Vec<u8> {
    let variables: Vec<_> = (exec.environment.iter())
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .collect();
    let arguments = exec.command.iter().map(|it| Some(it.as_bytes()));
    let environment = variables.iter().map(|it| Some(it.as_slice()));
    let folder: &OsStr = exec.working_directory.as_os_str();
    let parts: Vec<Option<&[u8]>> = [Some(folder.as_bytes())]
        .into_iter()
        .chain(arguments)
        .chain([None])
        .chain(environment)
        .chain([None])
        .collect();
    let mut words = vec![parts.len() as u64];
    let mut texts = Vec::new();
    let texts_at = (parts.len() + 1) * size_of::<u64>();
    for part in parts {
        words.push(part.map_or(0, |_| (texts_at + texts.len()) as u64));
        if let Some(text) = part {
            texts.extend_from_slice(text);
            texts.push(0);
        }
    }
    words.iter().flat_map(|word| word.to_ne_bytes()).chain(texts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_leads_to_what_it_describes() {
        let exec = Exec::new(["/bin/a", "b"]).with_env("C", "d").in_folder("/e");
        let block = block(&exec);
        let word = |at: usize| {
            let bytes = block[at * 8..at * 8 + 8].try_into().expect("eight");
            usize::try_from(u64::from_ne_bytes(bytes)).expect("small")
        };
        let text = |at: usize| {
            let rest = &block[word(at)..];
            String::from_utf8_lossy(rest.split(|byte| *byte == 0).next().expect("one")).into_owned()
        };
        assert_eq!(word(0), 6);
        assert_eq!([text(1), text(2), text(3), text(5)], ["/e", "/bin/a", "b", "C=d"]);
        assert_eq!([word(4), word(6)], [0, 0]);
    }
}
