//! `credential_process`: a program that prints credentials.

use serde_json::Value;

use super::json;
use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::files::split_command;
use crate::settings::options::ProcessShell;
use crate::settings::run::{Run, within};
use crate::trace::Origin;
use crate::world::Command;

const WHAT: &str = "credential_process";

/// Runs the configured command line and reads what it prints.
pub(crate) async fn load(
    run: &mut Run<'_>,
    line: &str,
    account_id: Option<&str>,
    origin: &Origin,
) -> Result<Credentials, Error> {
    let command = command(line, run.options.process_shell, run.context.windows)
        .ok_or_else(|| Error::invalid("credential_process has an open quote", origin.clone()))?;
    let program = command.program.clone();
    let context = run.context;
    let output = within(&*context.clock, run.options.source_budget, context.commands.run(command))
        .await
        .ok_or_else(|| Error::TimedOut {
            operation: format!("{WHAT} {program}"),
            budget: run.options.source_budget,
        })?
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::invalid(format!("program `{program}` is not there"), origin.clone())
            }
            std::io::ErrorKind::PermissionDenied => {
                Error::invalid(format!("program `{program}` cannot be run"), origin.clone())
            }
            _ => Error::failed(format!("{WHAT} {program}"), error),
        })?;
    if output.code != Some(0) {
        let end = match output.code {
            Some(code) => format!("code {code}"),
            None => "a signal".to_owned(),
        };
        return Err(Error::unexpected(WHAT, format!("`{program}` ended with {end}")));
    }
    let mut credentials = parse(&output.stdout)?;
    if credentials.account_id.is_none() {
        credentials.account_id = account_id.map(str::to_owned);
    }
    if credentials.expires_at.is_some_and(|at| at <= context.clock.now()) {
        run.trace.note(WHAT, "the program printed credentials that have expired");
    }
    Ok(credentials)
}

fn command(line: &str, shell: ProcessShell, windows: bool) -> Option<Command> {
    match (shell, windows) {
        (ProcessShell::System, false) => {
            Some(Command::new("sh", vec!["-c".to_owned(), line.to_owned()]))
        }
        (ProcessShell::System, true) => {
            Some(Command::new("cmd.exe", vec!["/C".to_owned(), line.to_owned()]))
        }
        (ProcessShell::None, _) => {
            let mut words = split_command(line)?.into_iter();
            let program = words.next()?;
            Some(Command::new(program, words.collect()))
        }
    }
}

/// Returns the program that a command line runs without a shell.
pub(crate) fn program(line: &str) -> Option<String> {
    command(line, ProcessShell::None, false).map(|command| command.program)
}

/// Reads a program's output: version 1 of the format that the AWS CLI documents.
///
/// # Errors
///
/// [`Error::Failed`] for anything else, without quoting it.
pub fn parse(stdout: &[u8]) -> Result<Credentials, Error> {
    let map = json::object(WHAT, stdout)?;
    if map.get("Version") != Some(&Value::from(1)) {
        return Err(Error::unexpected(WHAT, "Version is not 1"));
    }
    json::credentials(WHAT, &map, "SessionToken", Source::Process)
}
