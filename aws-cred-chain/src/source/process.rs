//! `credential_process`: a program that prints credentials.

use serde_json::Value;

use super::json;
use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::files::split_command;
use crate::settings::budget::within;
use crate::settings::options::ProcessShell;
use crate::settings::run::Run;
use crate::trace::Origin;
use crate::world::Command;

const WHAT: &str = "credential_process";

/// Runs the configured command line and parses its output.
pub(crate) async fn load(
    run: &mut Run<'_>,
    line: &str,
    account_id: Option<&str>,
    origin: &Origin,
) -> Result<Credentials, Error> {
    let (shell, windows) = (run.options.process_shell, run.context.windows);
    let command = command(line, shell, windows)
        .ok_or_else(|| Error::invalid("credential_process has an open quote", origin.clone()))?;
    let program = command.program.clone();
    let context = run.context;
    let budget = run.options.process_limit();
    let running = within(&*context.clock, budget, context.commands.run(command));
    let output = run
        .waiting()
        .of(&*context.clock, running)
        .await
        .ok_or_else(|| Error::TimedOut { operation: format!("{WHAT} {program}"), budget })?
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
    json::not_expired(WHAT, &credentials, context.clock.now())?;
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
            let words = if windows { windows_words(line) } else { split_command(line)? };
            let mut words = words.into_iter();
            let program = words.next()?;
            Some(Command::new(program, words.collect()))
        }
    }
}

/// Returns the program of a command line that is run without a shell.
pub(crate) fn program(line: &str, windows: bool) -> Option<String> {
    command(line, ProcessShell::None, windows).map(|command| command.program)
}

/// Splits by the rules of Microsoft's C runtime, as the AWS CLI does on Windows. Blanks separate
/// words, except within double quotes. A backslash is literal unless it precedes a double quote.
/// Two double quotes within quotes stand for one.
fn windows_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let mut count = 1;
                while chars.next_if_eq(&'\\').is_some() {
                    count += 1;
                }
                let word = word.get_or_insert_default();
                if chars.peek() == Some(&'"') {
                    word.extend(std::iter::repeat_n('\\', count / 2));
                    if count % 2 == 1 {
                        word.extend(chars.next());
                    }
                } else {
                    word.extend(std::iter::repeat_n('\\', count));
                }
            }
            '"' if quoted && chars.next_if_eq(&'"').is_some() => {
                word.get_or_insert_default().push('"');
            }
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' | '\t' | '\n' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Parses the output of a `credential_process`, version 1 of the format that the AWS CLI documents.
///
/// # Errors
///
/// [`Error::Failed`] for any other output. The error does not quote it.
pub fn parse(stdout: &[u8]) -> Result<Credentials, Error> {
    let map = json::object(WHAT, stdout)?;
    if map.get("Version") != Some(&Value::from(1)) {
        return Err(Error::unexpected(WHAT, "Version is not 1"));
    }
    json::credentials(WHAT, &map, "SessionToken", Source::Process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_programs_on_windows_do() {
        let check =
            |line: &str, expected: &[&str]| assert_eq!(windows_words(line), expected, "{line}");
        check(r"C:\Tools\vault.exe --id x", &[r"C:\Tools\vault.exe", "--id", "x"]);
        check(r#""C:\Program Files\v.exe" "a b""#, &[r"C:\Program Files\v.exe", "a b"]);
        check(r#"v a\\"b c" \"d "e""f""#, &["v", r"a\b c", "\"d", "e\"f"]);
        check(r#"v "" 'a b'"#, &["v", "", "'a", "b'"]);
        check(r"v \\server\share\", &["v", r"\\server\share\"]);
    }
}
