//! `faas-host logs`: prints a function's log from a host's data folder, whether or not the host
//! runs.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use lambda_host::FunctionName;
use lambda_host::logs::{LogEvent, LogStore};

use crate::client::Error;
use crate::say::say;

/// Prints the log of `function`. With `follow`, also prints new lines as they are written, until
/// Ctrl-C.
///
/// # Errors
///
/// The folder has no logs, a log cannot be read, or, without `follow`, the function has no log.
pub(crate) async fn run(data: &Path, function: &str, follow: bool) -> Result<(), Error> {
    let function: FunctionName = function.parse()?;
    let folder = data.join("logs");
    if !folder.is_dir() {
        return Err(format!("{} has no logs: is it a host's data folder?", data.display()).into());
    }
    let store = LogStore::new(folder);
    let group = format!("/aws/lambda/{function}");
    // The position in each stream: the time of the last printed line in milliseconds, and how many
    // lines of that millisecond were printed.
    let mut printed: HashMap<String, (u64, usize)> = HashMap::new();
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let mut events = Vec::new();
        for stream in store.streams(&group)? {
            let done = printed.entry(stream.name.clone()).or_default();
            if follow && stream.last_ms < done.0 {
                continue;
            }
            events.extend(behind(store.events(&group, &stream.name)?, done));
        }
        events.sort_by_key(|event| event.at_ms);
        for event in &events {
            say!("{}", event.message);
        }
        if !follow {
            return match events.is_empty() {
                true => Err(format!("no log of {function}: was it invoked?").into()),
                false => Ok(()),
            };
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            stopped = &mut stop => return stopped.map_err(Into::into),
        }
    }
}

/// Returns the events after the position `done`, and advances `done` past them.
fn behind(events: Vec<LogEvent>, done: &mut (u64, usize)) -> Vec<LogEvent> {
    let (at, mut same) = *done;
    let new: Vec<LogEvent> = events
        .into_iter()
        .filter(|event| match event.at_ms.cmp(&at) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal if same > 0 => {
                same -= 1;
                false
            }
            std::cmp::Ordering::Equal => true,
        })
        .collect();
    for event in &new {
        *done = if event.at_ms == done.0 { (done.0, done.1 + 1) } else { (event.at_ms, 1) };
    }
    new
}

const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_printed_once() {
        let mut done = (0, 0);
        let mut events = vec![LogEvent::new(5, "a"), LogEvent::new(5, "b")];
        assert_eq!(behind(events.clone(), &mut done), events);
        assert_eq!(behind(events.clone(), &mut done), []);
        events.push(LogEvent::new(5, "c"));
        events.push(LogEvent::new(6, "d"));
        assert_eq!(behind(events.clone(), &mut done), events[2..]);
        assert_eq!(behind(events.clone(), &mut done), []);
        // The oldest lines have been removed by the log's limits.
        events.drain(..3);
        events.push(LogEvent::new(6, "e"));
        assert_eq!(behind(events, &mut done), [LogEvent::new(6, "e")]);
    }
}
