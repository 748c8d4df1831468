//! The words that a sandbox's init and its host say to each other over the init's socket: compiled
//! into both programs.
#![allow(dead_code, reason = "each side says a part of it")]

/// What the init says: three numbers, of which the first is one of these.
///
/// The init cannot go on: the step that it is at, and the error number.
pub(crate) const TELL_FAILED: u32 = 1;
/// The program has ended: 0, and the wait status.
pub(crate) const TELL_ENDED: u32 = 2;
/// Extensions were started: how many, and 0.
pub(crate) const TELL_EXTENSIONS: u32 = 3;
/// An extension has ended: its number, and the wait status.
pub(crate) const TELL_EXTENSION_ENDED: u32 = 4;
/// A program beside has ended: its number, and the wait status.
pub(crate) const TELL_EXEC_ENDED: u32 = 5;
/// A program beside was not started: its number, and the error number.
pub(crate) const TELL_EXEC_FAILED: u32 = 6;
/// All processes but the init have ended after [`SAY_RESET`]: 0 and 0.
pub(crate) const TELL_RESET: u32 = 7;

/// What the host says, a byte. Start the extensions, and the program where there are none. With two
/// descriptors, those are the extensions' standard output and standard error.
pub(crate) const SAY_EXTENSIONS: u8 = b'e';
/// Start the program.
pub(crate) const SAY_PROGRAM: u8 = b'g';
/// Ask the program to end.
pub(crate) const SAY_TERMINATE: u8 = b't';
/// Kill the program.
pub(crate) const SAY_KILL: u8 = b'k';
/// Start a program beside: its number in four bytes, its description and standard streams as
/// descriptors.
pub(crate) const SAY_EXEC: u8 = b'x';
/// Most programs beside at a time.
pub(crate) const EXECS_MAX: usize = 16;
/// Kill a program beside: its number in four bytes.
pub(crate) const SAY_EXEC_KILL: u8 = b'y';

/// Kill every process but the init, and wait for their ends. [`SAY_EXTENSIONS`] can follow.
pub(crate) const SAY_RESET: u8 = b'r';

/// The steps of the init, in order.
pub(crate) const STEP_USER: u32 = 1;
pub(crate) const STEP_USER_NAMESPACE: u32 = 2;
pub(crate) const STEP_ID_MAP: u32 = 3;
pub(crate) const STEP_CAPABILITIES: u32 = 4;
pub(crate) const STEP_KEYRING: u32 = 5;
pub(crate) const STEP_PARENT_DEATH: u32 = 6;
pub(crate) const STEP_FILTER: u32 = 7;
pub(crate) const STEP_RULES: u32 = 8;
pub(crate) const STEP_PROGRAM: u32 = 9;
pub(crate) const STEP_EXTENSION: u32 = 10;
pub(crate) const STEP_OOM: u32 = 11;
/// A program beside is no step of the init's, and has no name among them.
pub(crate) const STEP_EXEC: u32 = 12;

/// The steps as an error names them, by their numbers.
pub(crate) const STEPS: [&str; 12] = [
    "starting the sandbox's init",
    "becoming nobody",
    "making a user namespace",
    "writing the user's map",
    "dropping capabilities",
    "making a keyring",
    "asking to end with the host",
    "loading the system call filter",
    "restricting file access",
    "starting the program",
    "starting the extensions",
    "setting oom_score_adj",
];
