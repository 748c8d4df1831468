//! Where results of events go beyond functions of this host.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;

use lambda_sandbox::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::error::Error;

/// A message to a destination or a dead-letter target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Delivery {
    /// The ARN of the queue, the topic, the event bus or the bucket that receives the message.
    pub target: String,
    /// The message: JSON.
    pub body: String,
    /// The message's attributes. SQS and SNS get a JSON number with the data type `Number`.
    pub attributes: Vec<(String, serde_json::Value)>,
    /// The X-Ray trace header of the event.
    pub trace_id: Option<String>,
}

/// Takes messages to destinations and dead-letter targets that are no functions.
///
/// May be called at once for many, and again for one that failed or whose host ended meanwhile.
pub trait Deliver: Send + Sync + fmt::Debug {
    /// Delivers a message.
    ///
    /// # Errors
    ///
    /// Any error: the message is tried again a few times, and then given up.
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<(), Error>>;
}

/// Appends each message to a file, a line of JSON each. The file is made when it is not there.
#[derive(Clone, Debug)]
pub struct DeliverToFile {
    path: PathBuf,
}

impl DeliverToFile {
    /// Appends to the file `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Deliver for DeliverToFile {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let path = self.path.clone();
            let mut line = serde_json::to_vec(delivery).map_err(Error::registry("encode"))?;
            line.push(b'\n');
            blocking(move || {
                let file = std::fs::File::options().create(true).append(true).open(&path);
                let mut file = file.map_err(Error::io("open", &path))?;
                // One write: lines of others do not come between.
                file.write_all(&line).map_err(Error::io("write", &path))?;
                file.sync_data().map_err(Error::io("write", &path))
            })
            .await
        })
    }
}
