//! Scripted programs and people.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::VirtualClock;
use crate::credentials::Secret;
use crate::world::lock;
use crate::world::{BoxFuture, Clock, Command, CommandOutput, Prompt, Question, RunCommand};

/// Programs by name, each with its output. Clones share them; `Debug` shows names only.
#[derive(Clone, Default)]
pub struct ScriptedCommands(Arc<Mutex<Commands>>);

#[derive(Default)]
struct Commands {
    outputs: BTreeMap<String, Script>,
    calls: Vec<Command>,
}

/// How a program behaves.
#[derive(Clone)]
enum Script {
    Ends(CommandOutput),
    EndsAfter(VirtualClock, Duration, CommandOutput),
    Hangs,
}

impl ScriptedCommands {
    /// Sets the output and exit code of `program` for every call.
    pub fn put(&self, program: impl Into<String>, output: CommandOutput) {
        lock(&self.0).outputs.insert(program.into(), Script::Ends(output));
    }

    /// Sets the output and exit code of a program that runs for `time` by `clock`.
    pub fn put_slow(
        &self,
        program: impl Into<String>,
        (clock, time): (&VirtualClock, Duration),
        output: CommandOutput,
    ) {
        let script = Script::EndsAfter(clock.clone(), time, output);
        lock(&self.0).outputs.insert(program.into(), script);
    }

    /// Makes `program` run for ever.
    pub fn put_hanging(&self, program: impl Into<String>) {
        lock(&self.0).outputs.insert(program.into(), Script::Hangs);
    }

    /// Returns the commands that were run so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Command> {
        lock(&self.0).calls.clone()
    }
}

impl std::fmt::Debug for ScriptedCommands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(lock(&self.0).outputs.keys()).finish()
    }
}

impl RunCommand for ScriptedCommands {
    fn run(&self, command: Command) -> BoxFuture<'_, io::Result<CommandOutput>> {
        Box::pin(async move {
            let limit = command.stdout_bytes_max;
            let script = {
                let mut commands = lock(&self.0);
                let script = commands.outputs.get(&command.program).cloned();
                commands.calls.push(command);
                script
            };
            let output = match script.ok_or(io::ErrorKind::NotFound)? {
                Script::Ends(output) => output,
                Script::EndsAfter(clock, time, output) => {
                    clock.sleep(time).await;
                    output
                }
                Script::Hangs => std::future::pending().await,
            };
            if u64::try_from(output.stdout.len()).is_ok_and(|len| len > limit) {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(output)
        })
    }

    fn exists(&self, program: &str) -> bool {
        lock(&self.0).outputs.contains_key(program)
    }
}

/// A person who enters the given codes in order, and after them nothing. Clones share the codes.
#[derive(Clone, Debug, Default)]
pub struct ScriptedPrompt(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    codes: VecDeque<Secret>,
    questions: Vec<Question>,
}

impl ScriptedPrompt {
    /// Adds a code that the person will enter.
    pub fn put(&self, code: impl Into<Secret>) {
        lock(&self.0).codes.push_back(code.into());
    }

    /// Returns the questions that were asked so far.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        lock(&self.0).questions.clone()
    }
}

impl Prompt for ScriptedPrompt {
    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Secret>> {
        Box::pin(async move {
            let mut answers = lock(&self.0);
            answers.questions.push(question);
            answers.codes.pop_front().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }
}
