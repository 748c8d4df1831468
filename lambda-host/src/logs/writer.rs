//! Writes log lines to files, on a thread of its own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::bounds::LogBounds;
use super::event::LogEvent;
use super::segment;
use crate::activity::Observer;
use crate::error::Error;
use crate::folder::DataFolder;

/// Hands lines to the thread that writes them. The thread ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    batches: SyncSender<Batch>,
    /// Lines that found no room in the channel.
    lost: Arc<AtomicU64>,
}

/// Lines of one stream.
#[derive(Debug)]
struct Batch {
    group: String,
    stream: String,
    events: Vec<LogEvent>,
}

impl LogWriter {
    /// Starts the thread, which writes to `root` and keeps `folder`, in which that is. Blocks for a
    /// look at what is there.
    pub(crate) fn start(
        root: PathBuf,
        bounds: LogBounds,
        observer: Observer,
        folder: Arc<DataFolder>,
    ) -> Result<Self, Error> {
        fs::create_dir_all(&root).map_err(Error::io("create folder", &root))?;
        let files = Files::open(&root, bounds).map_err(Error::io("read", &root))?;
        let (batches, received) = sync_channel(BATCHES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new().name("function-logs".to_owned());
        let count = Arc::clone(&lost);
        let run = move || {
            write_all(files, &received, &count, &observer);
            // A temporary folder is removed here at the earliest.
            drop(folder);
        };
        drop(thread.spawn(run).map_err(Error::io("start a thread for", &root))?);
        Ok(Self { batches, lost })
    }

    /// Writes lines soon. Does not wait: when too many wait already they are lost, and the log says
    /// how many.
    pub(crate) fn append(&self, group: String, stream: String, events: Vec<LogEvent>) {
        let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) =
            self.batches.try_send(Batch { group, stream, events })
        else {
            return;
        };
        self.lost.fetch_add(batch.events.len() as u64, Ordering::Relaxed);
    }
}

fn write_all(mut files: Files, batches: &Receiver<Batch>, lost: &AtomicU64, observer: &Observer) {
    let mut failing = false;
    while let Ok(mut batch) = batches.recv() {
        let count = lost.swap(0, Ordering::Relaxed);
        if let (1.., Some(last)) = (count, batch.events.last()) {
            let text =
                format!("[{count} lines of the host's functions were lost: too many at once]");
            batch.events.push(LogEvent::new(last.at_ms, text));
        }
        if let Some(metrics) = observer.counted() {
            for event in batch.events.iter().filter(|it| it.message.starts_with('{')) {
                metrics.line(&batch.group, &event.message);
            }
        }
        let written = files.append(&batch);
        if let (Err(error), false) = (&written, failing) {
            tracing::warn!(%error, group = batch.group, "function logs cannot be written");
        }
        failing = written.is_err();
    }
}

/// The files that there are, and those that are open.
#[derive(Debug)]
struct Files {
    root: PathBuf,
    bounds: LogBounds,
    groups: BTreeMap<String, Group>,
    bytes: u64,
    open: HashMap<(String, String), Open>,
    /// Counts uses of open files.
    uses: u64,
    text: Vec<u8>,
}

/// A group's files, the oldest first.
#[derive(Debug, Default)]
struct Group {
    files: VecDeque<Kept>,
    bytes: u64,
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    bytes: u64,
    changed_ms: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    number: u32,
    bytes: u64,
    used: u64,
}

impl Files {
    fn open(root: &Path, bounds: LogBounds) -> io::Result<Self> {
        let (mut groups, mut bytes) = (BTreeMap::new(), 0);
        for name in segment::groups(root)? {
            let mut files: Vec<Kept> = segment::segments(root, &name)?
                .into_iter()
                .map(|it| Kept { path: it.path, bytes: it.bytes, changed_ms: it.changed_ms })
                .collect();
            files.sort_by_key(|it| it.changed_ms);
            let group_bytes = files.iter().map(|it| it.bytes).sum();
            bytes += group_bytes;
            groups.insert(name, Group { files: files.into(), bytes: group_bytes });
        }
        let (root, open) = (root.to_path_buf(), HashMap::new());
        Ok(Self { root, bounds, groups, bytes, open, uses: 0, text: Vec::new() })
    }

    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(last) = batch.events.last() else { return Ok(()) };
        self.text.clear();
        batch.events.iter().for_each(|event| event.write(&mut self.text));
        let written = self.text.len() as u64;
        let key = (batch.group.clone(), batch.stream.clone());
        let mut open = match self.open.remove(&key) {
            Some(open) if open.bytes + written <= self.bounds.file_bytes_max => open,
            before => self.next_file(batch, before.map_or(0, |it| it.number + 1))?,
        };
        open.file.write_all(&self.text)?;
        open.bytes += written;
        self.uses += 1;
        open.used = self.uses;
        let group = self.groups.entry(batch.group.clone()).or_default();
        // It is among the newest.
        if let Some(kept) = group.files.iter_mut().rev().find(|it| it.path == open.path) {
            kept.bytes += written;
            kept.changed_ms = last.at_ms;
        }
        group.bytes += written;
        self.bytes += written;
        self.open.insert(key, open);
        self.close_surplus();
        self.remove_surplus(&batch.group)
    }

    /// Makes the first file of a stream from `number` on that is not there.
    fn next_file(&mut self, batch: &Batch, number: u32) -> io::Result<Open> {
        fs::create_dir_all(segment::folder(&self.root, &batch.group))?;
        for number in number.. {
            let path = segment::path(&self.root, &batch.group, &batch.stream, number);
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    let kept = Kept { path: path.clone(), bytes: 0, changed_ms: 0 };
                    self.groups.entry(batch.group.clone()).or_default().files.push_back(kept);
                    return Ok(Open { file, path, number, bytes: 0, used: 0 });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("every number of a stream's files is taken"))
    }

    /// Closes the file that was not written to for longest, when too many are open.
    fn close_surplus(&mut self) {
        if self.open.len() > OPEN_MAX {
            let oldest = self.open.iter().min_by_key(|(_, it)| it.used).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.open.remove(&key));
        }
    }

    /// Removes the oldest files that are beyond the bounds, but never the newest of a group.
    fn remove_surplus(&mut self, group: &str) -> io::Result<()> {
        while let Some(it) = self.groups.get(group)
            && (it.bytes > self.bounds.group_bytes_max
                || it.files.len() > self.bounds.group_files_max)
            && it.files.len() > 1
        {
            self.remove_oldest(&group.to_owned())?;
        }
        while self.bytes > self.bounds.bytes_max {
            let with_more = self.groups.iter().filter(|(_, it)| it.files.len() > 1);
            let oldest = with_more.min_by_key(|(_, it)| it.files.front().map(|it| it.changed_ms));
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { return Ok(()) };
            self.remove_oldest(&oldest)?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self, name: &String) -> io::Result<()> {
        let Some(group) = self.groups.get_mut(name) else { return Ok(()) };
        let Some(kept) = group.files.pop_front() else { return Ok(()) };
        group.bytes -= kept.bytes;
        self.bytes -= kept.bytes;
        self.open.retain(|_, open| open.path != kept.path);
        match fs::remove_file(&kept.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Batches that may wait to be written.
const BATCHES_MAX: usize = 1024;
/// Files that are open at once.
const OPEN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::LogStore;

    fn files(root: &Path, bounds: LogBounds) -> Files {
        Files::open(root, bounds).unwrap()
    }

    fn batch(group: &str, stream: &str, at_ms: u64, message: &str) -> Batch {
        let (group, stream) = (group.to_owned(), stream.to_owned());
        Batch { group, stream, events: vec![LogEvent::new(at_ms, message)] }
    }

    fn bytes_below(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).unwrap().flatten();
        entries
            .map(|it| match it.file_type().unwrap().is_dir() {
                true => bytes_below(&it.path()),
                false => it.metadata().unwrap().len(),
            })
            .sum()
    }

    #[test]
    fn lines_of_a_stream_come_back_in_order_over_many_files_and_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = LogBounds { file_bytes_max: 200, ..LogBounds::default() };
        let mut expected = Vec::new();
        for round in 0..3_u64 {
            let mut files = files(folder.path(), bounds);
            for at in 0..50 {
                let at_ms = 1000 * round + at;
                files.append(&batch("g", "s", at_ms, &format!("line {at_ms}"))).unwrap();
                expected.push(LogEvent::new(at_ms, format!("line {at_ms}")));
            }
        }
        let store = LogStore::new(folder.path());
        assert_eq!(store.events("g", "s").unwrap(), expected);
    }

    #[test]
    fn the_oldest_files_go_when_a_bound_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = LogBounds {
            group_bytes_max: 10_000,
            bytes_max: 25_000,
            file_bytes_max: 1000,
            group_files_max: 20,
        };
        let mut files = files(folder.path(), bounds);
        let line = "x".repeat(100);
        for at in 0..2000_u64 {
            let (group, stream) = (format!("g{}", at % 5), format!("s{}", at / 500));
            files.append(&batch(&group, &stream, at, &line)).unwrap();
            assert!(files.bytes <= bounds.bytes_max + bounds.file_bytes_max);
        }
        assert_eq!(files.bytes, bytes_below(folder.path()), "what is counted is what is there");
        assert!(files.open.len() <= OPEN_MAX);
        let store = LogStore::new(folder.path());
        for group in 0..5 {
            let group = format!("g{group}");
            let events = store.events(&group, "s3").unwrap();
            assert!(events.last().unwrap().at_ms >= 1995, "the newest lines stay");
            assert!(store.events(&group, "s0").unwrap().is_empty(), "the oldest went");
        }
    }
}
