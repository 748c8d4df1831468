//! Provisioned sandboxes of an alias that moves to another version.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::catalog::record::Record;
use crate::error::{Error, with_causes};
use crate::function::name::FunctionName;
use crate::function::target::Target;
use crate::function::version::Version;
use crate::host::Host;

/// The provisioned sandboxes of an alias move from one version to another: those of the version
/// before stay until those of the new one are ready, so that the alias has ready sandboxes all the
/// time.
///
/// Source: AWS, "Configuring provisioned concurrency for a function": no cold starts while an alias
/// is updated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProvisionedMove {
    alias: String,
    before: u64,
    after: u64,
}

impl ProvisionedMove {
    /// Begins the move of an alias that is provisioned and names another version now. Without
    /// `keep`, or if nothing moves, the sandboxes of the version before are not kept.
    pub(super) fn begin(
        record: &mut Record,
        alias: &str,
        before: Version,
        after: Version,
        keep: bool,
    ) -> Option<Self> {
        let provisioned = record.attachments.provisioned.get(alias)?;
        let (Version::Number(before), Version::Number(after)) = (before, after) else {
            return None;
        };
        if before == after {
            return None;
        }
        // A version that is provisioned by itself stays anyway.
        let own = record.attachments.provisioned.contains_key(&before.to_string());
        let kept = Some(before).filter(|_| keep && !own);
        if provisioned.before != kept {
            let all = &mut record.attachments_mut().provisioned;
            all.entry(alias.to_owned()).and_modify(|it| it.before = kept);
        }
        kept.map(|before| Self { alias: alias.to_owned(), before, after })
    }

    /// Ends the move in a task of its own, which ends with the host.
    pub(super) fn finish_later(self, host: &Host, function: FunctionName) {
        let host = host.downgrade();
        let until = Instant::now() + MOVE_TIME_MAX;
        drop(tokio::spawn(async move {
            let mut pause = POLL_MIN;
            loop {
                sleep(pause).await;
                pause = (pause * 2).min(POLL_MAX);
                let Some(host) = host.upgrade() else { return };
                match self.step(&host, &function, until).await {
                    Ok(false) => {}
                    Ok(true) | Err(Error::Stopping) => return,
                    Err(error) => {
                        let error = with_causes(&error);
                        tracing::warn!(%function, error, "provisioned sandboxes of two versions stay");
                        return;
                    }
                }
            }
        }));
    }

    /// Ends the move if the sandboxes of the new version are ready, or if it is `until`. Tells
    /// whether it is over.
    async fn step(
        &self,
        host: &Host,
        function: &FunctionName,
        until: Instant,
    ) -> Result<bool, Error> {
        let Some(record) = host.catalog().record(function) else { return Ok(true) };
        if !self.is_under_way(&record) {
            return Ok(true);
        }
        let wanted = record.attachments.provisioned(Version::Number(self.after));
        let mut target = Target::from(function.clone());
        target.qualifier = Some(self.after.to_string());
        if host.ready_sandboxes(target).await? < wanted && Instant::now() < until {
            return Ok(false);
        }
        let its = self.clone();
        let end = move |record: &mut Record| {
            if its.is_under_way(record) {
                let all = &mut record.attachments_mut().provisioned;
                all.entry(its.alias).and_modify(|it| it.before = None);
            }
            Ok(())
        };
        host.catalog().amend(function.clone(), end).await?;
        Ok(true)
    }

    fn is_under_way(&self, record: &Record) -> bool {
        let attachments = &record.attachments;
        let names = attachments.aliases.get(&self.alias).map(|it| it.version);
        let provisioned = attachments.provisioned.get(&self.alias);
        names == Some(Version::Number(self.after))
            && provisioned.is_some_and(|it| it.before == Some(self.before))
    }
}

/// Goes on with the moves that the last host on this folder did not end.
pub(crate) fn resume(host: &Host) {
    for record in host.catalog().page(None, usize::MAX) {
        for (alias, provisioned) in &record.attachments.provisioned {
            let names = record.attachments.aliases.get(alias).map(|it| it.version);
            if let (Some(before), Some(Version::Number(after))) = (provisioned.before, names) {
                let begun = ProvisionedMove { alias: alias.clone(), before, after };
                begun.finish_later(host, record.latest.function.config.name.clone());
            }
        }
    }
}

/// After this time the sandboxes of the version before go, whether the new ones are ready or not.
const MOVE_TIME_MAX: Duration = Duration::from_secs(600);
/// How often the sandboxes of the new version are counted: first and last.
const POLL_MIN: Duration = Duration::from_millis(50);
const POLL_MAX: Duration = Duration::from_secs(1);
