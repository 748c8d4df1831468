//! What reads queues and streams for event source mappings: a task for each mapping that is
//! enabled.

mod batch;
mod queue;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::services::Services;
use crate::catalog::mappings::{Mapping, SourceKind, no_queue, no_stream};
use crate::error::Error;
use crate::host::{Host, WeakHost};

/// Reads for all mappings of a host until it is gone.
pub(crate) fn start(host: &Host, services: Services) {
    drop(tokio::spawn(run(host.downgrade(), Arc::new(services))));
}

async fn run(host: WeakHost, services: Arc<Services>) {
    let mut readers: BTreeMap<String, Reader> = BTreeMap::new();
    loop {
        let mappings: BTreeMap<String, Arc<Mapping>> = {
            let Some(host) = host.upgrade() else { break };
            let enabled = host.mappings().into_iter().filter(|it| it.enabled);
            enabled.map(|it| (it.id.clone(), it)).collect()
        };
        readers.retain(|id, reader| {
            mappings.get(id).is_some_and(|it| it.modified_at_ms == reader.modified_at_ms)
        });
        for (id, mapping) in mappings {
            readers.entry(id).or_insert_with(|| Reader::start(&host, &services, &mapping));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The task that reads for a mapping; ended on drop.
#[derive(Debug)]
struct Reader {
    modified_at_ms: u64,
    task: JoinHandle<()>,
}

impl Reader {
    fn start(host: &WeakHost, services: &Arc<Services>, mapping: &Arc<Mapping>) -> Self {
        let source = Source {
            host: host.clone(),
            services: Arc::clone(services),
            mapping: Arc::clone(mapping),
        };
        let kind = SourceKind::of(mapping.source_arn.as_deref());
        let task = tokio::spawn(async move {
            match kind {
                SourceKind::Sqs => queue::read(source).await,
                SourceKind::Kinesis | SourceKind::DynamoDb => stream::read(source, kind).await,
                SourceKind::Other => {
                    tracing::warn!(
                        mapping = source.mapping.id,
                        "sources of this kind are not read"
                    );
                }
            }
        });
        Self { modified_at_ms: mapping.modified_at_ms, task }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a task that reads for a mapping needs.
#[derive(Clone, Debug)]
struct Source {
    host: WeakHost,
    services: Arc<Services>,
    mapping: Arc<Mapping>,
}

impl Source {
    fn arn(&self) -> &str {
        self.mapping.source_arn.as_deref().unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.mapping.settings.get(name).and_then(serde_json::Value::as_i64)
    }

    fn batch_size(&self) -> usize {
        self.number("BatchSize").and_then(|it| usize::try_from(it).ok()).unwrap_or(10).max(1)
    }

    fn window(&self) -> Duration {
        let seconds = self.number("MaximumBatchingWindowInSeconds").unwrap_or(0);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

/// Checks that the source of a mapping is there.
pub(crate) async fn check(services: &Services, arn: &str) -> Result<(), Error> {
    let found = match SourceKind::of(Some(arn)) {
        SourceKind::Sqs => services.queue_url(arn).await.map(drop),
        kind @ (SourceKind::Kinesis | SourceKind::DynamoDb) => {
            stream::shards(services, kind, arn).await.map(drop)
        }
        SourceKind::Other => return Ok(()),
    };
    match (found, SourceKind::of(Some(arn))) {
        (Err(Error::Service { code, .. }), SourceKind::Sqs)
            if code.contains("NonExistentQueue") || code.contains("QueueDoesNotExist") =>
        {
            Err(no_queue())
        }
        (Err(Error::Service { code, .. }), _) if code == "ResourceNotFoundException" => {
            Err(no_stream(arn))
        }
        (found, _) => found,
    }
}

/// How often the mappings are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a source that cannot be read is left alone.
const PAUSE: Duration = Duration::from_secs(2);
