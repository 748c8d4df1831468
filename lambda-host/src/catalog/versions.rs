//! Published versions: code and settings that stay as they are under a number.

use std::sync::Arc;

use super::held::Held;
use super::new_revision;
use super::record::Record;
use crate::function::config::FunctionConfig;
use crate::function::version::Version;
use crate::function::{Function, NOT_DEPLOYED, Step, UnderWay};

impl Record {
    /// Publishes `$LATEST`, or returns the last version when it is the same.
    pub(crate) fn publish(&mut self, description: Option<String>) -> Held {
        if let Some(last) = self.versions.get(self.attachments.last_version)
            && self.is_published(&last.function)
        {
            return last;
        }
        let latest = Function::clone(&self.latest.function);
        let attachments = self.attachments_mut();
        attachments.last_version += 1;
        attachments.published_description.clone_from(&latest.config.description);
        let number = attachments.last_version;
        let mut function = Function {
            deployment: NOT_DEPLOYED,
            version: Version::Number(number),
            revision: new_revision(),
            // A version published together with new code is itself `Pending` for that time.
            under_way: latest.under_way.map(|it| UnderWay { step: Step::Creating, ..it }),
            ..latest
        };
        if let Some(description) = description.filter(|it| !it.is_empty()) {
            Arc::make_mut(&mut function.config).description = description;
        }
        let held = Held { function: Arc::new(function), code: Arc::clone(&self.latest.code) };
        self.versions.put(&held);
        held
    }

    /// Tells whether a version is what `$LATEST` is.
    fn is_published(&self, version: &Function) -> bool {
        let latest = &self.latest.function;
        let mut config = FunctionConfig::clone(&version.config);
        config.description.clone_from(&self.attachments.published_description);
        latest.code == version.code && *latest.config == config
    }
}
