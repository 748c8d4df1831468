//! Event source mappings: make, change, find, remove.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde_json::Value;

use crate::catalog::Inner;
use crate::catalog::bounds::{MAPPINGS_MAX, check_count};
use crate::catalog::mappings::{Mapping, SourceKind, checkpoints, key};
#[cfg(feature = "http")]
use crate::catalog::mappings::{no_queue, no_stream};
use crate::clock::now_ms;
use crate::error::Error;
use crate::events::filter;
use crate::function::tags::{self, TagChange};
use crate::function::target::Target;
use crate::host::Host;

impl Host {
    /// Makes an event source mapping; its settings were checked.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] when the function is not there; [`Error::Conflict`] when the source is
    /// mapped to it already; [`Error::Registry`] when it cannot be kept.
    pub async fn create_mapping(
        &self,
        function: Target,
        source_arn: Option<String>,
        enabled: bool,
        settings: BTreeMap<String, Value>,
        tags: BTreeMap<String, String>,
    ) -> Result<Arc<Mapping>, Error> {
        tags::check(&tags)?;
        check_filters(&settings)?;
        let function_arn = self.mapped_function(function)?;
        #[cfg(feature = "services")]
        if let (Some(services), Some(arn)) = (self.services(), &source_arn) {
            crate::events::poll::check(services, arn).await?;
        }
        self.catalog()
            .change(|inner| async move {
                let _turn = inner.changing.lock().await;
                let number = {
                    let all = inner.mappings.read().unwrap_or_else(PoisonError::into_inner);
                    let twice = |it: &&Arc<Mapping>| {
                        is_same(it, &function_arn, source_arn.as_deref(), &settings)
                    };
                    if let Some(other) = all.by_number.values().find(twice) {
                        return Err(already(other, &settings));
                    }
                    check_count(
                        all.by_number.len() + 1,
                        true,
                        MAPPINGS_MAX,
                        "event source mappings",
                    )?;
                    all.by_number.keys().next_back().map_or(1, |it| it + 1)
                };
                let mapping = Mapping {
                    id: uuid::Uuid::new_v4().to_string(),
                    function_arn,
                    source_arn,
                    enabled,
                    settings,
                    tags,
                    modified_at_ms: now_ms(),
                    number,
                };
                inner.keep_mapping(mapping).await
            })
            .await
    }

    /// Changes an event source mapping; its settings were checked.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Parameter`] when the function is not there;
    /// [`Error::Registry`] when it cannot be kept.
    pub async fn update_mapping(
        &self,
        id: &str,
        function: Option<Target>,
        enabled: Option<bool>,
        settings: BTreeMap<String, Value>,
    ) -> Result<Arc<Mapping>, Error> {
        check_filters(&settings)?;
        let function_arn = function.map(|it| self.mapped_function(it)).transpose()?;
        self.amend_mapping(id, move |mapping| {
            mapping.function_arn = function_arn.unwrap_or_else(|| mapping.function_arn.clone());
            mapping.enabled = enabled.unwrap_or(mapping.enabled);
            mapping.settings.extend(settings);
            mapping.modified_at_ms = now_ms();
            Ok(())
        })
        .await
    }

    /// Changes the tags of an event source mapping.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Parameter`] for tags that cannot be; [`Error::Registry`] when
    /// they cannot be kept.
    pub async fn change_mapping_tags(&self, id: &str, change: TagChange) -> Result<(), Error> {
        self.amend_mapping(id, move |mapping| change.apply(&mut mapping.tags)).await.map(drop)
    }

    async fn amend_mapping(
        &self,
        id: &str,
        change: impl FnOnce(&mut Mapping) -> Result<(), Error> + Send + 'static,
    ) -> Result<Arc<Mapping>, Error> {
        let id = id.to_owned();
        self.catalog()
            .change(|inner| async move {
                let _turn = inner.changing.lock().await;
                let found = {
                    let all = inner.mappings.read().unwrap_or_else(PoisonError::into_inner);
                    all.get(&id).cloned()
                };
                let mut mapping = Mapping::clone(&*found.ok_or_else(Error::no_such_resource)?);
                change(&mut mapping)?;
                inner.keep_mapping(mapping).await
            })
            .await
    }

    /// Removes an event source mapping; returns what it was.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Registry`] when the removal cannot be kept.
    pub async fn remove_mapping(&self, id: &str) -> Result<Arc<Mapping>, Error> {
        let mapping = self.mapping(id)?;
        self.catalog()
            .change(|inner| async move {
                let _turn = inner.changing.lock().await;
                let places = inner.registry.keys(&checkpoints(&mapping.id))?;
                let places = places.into_iter().map(|key| (key, None));
                let rows = std::iter::once((key(mapping.number), None)).chain(places);
                inner.keep_resources(rows.collect()).await?;
                let mut all = inner.mappings.write().unwrap_or_else(PoisonError::into_inner);
                all.by_number.remove(&mapping.number);
                all.results.remove(&mapping.id);
                Ok(mapping)
            })
            .await
    }

    /// Returns the sequence number up to which a mapping has handled a shard.
    #[cfg(feature = "services")]
    pub(crate) fn checkpoint(&self, key: &str) -> Result<Option<String>, Error> {
        // Read once for each shard, when a host or a mapping starts.
        Ok(self.catalog().inner.registry.resources::<String>(key)?.pop())
    }

    /// Keeps up to where a shard was handled for a mapping.
    #[cfg(feature = "services")]
    pub(crate) async fn keep_checkpoint(&self, key: String, at: String) -> Result<(), Error> {
        self.catalog()
            .change(|inner| async move {
                let _turn = inner.changing.lock().await;
                inner.keep_resource(key, Some(&at)).await
            })
            .await
    }

    /// Notes what came of a batch of a mapping, in AWS's words.
    #[cfg(feature = "services")]
    pub(crate) fn note_processing(&self, id: &str, result: &'static str) {
        let inner = &self.catalog().inner;
        {
            let all = inner.mappings.read().unwrap_or_else(PoisonError::into_inner);
            if all.results.get(id) == Some(&result) || all.get(id).is_none() {
                return;
            }
        }
        let mut all = inner.mappings.write().unwrap_or_else(PoisonError::into_inner);
        all.results.insert(id.to_owned(), result);
    }

    /// Returns what came of a mapping's last batch since the start of the host, in AWS's words.
    #[cfg(feature = "http")]
    pub(crate) fn processing_result(&self, id: &str) -> &'static str {
        let all = self.catalog().inner.mappings.read().unwrap_or_else(PoisonError::into_inner);
        all.results.get(id).copied().unwrap_or("No records processed")
    }

    /// Returns an event source mapping.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn mapping(&self, id: &str) -> Result<Arc<Mapping>, Error> {
        let all = self.catalog().inner.mappings.read().unwrap_or_else(PoisonError::into_inner);
        all.get(id).cloned().ok_or_else(Error::no_such_resource)
    }

    /// Returns all event source mappings, oldest first.
    #[must_use]
    pub fn mappings(&self) -> Vec<Arc<Mapping>> {
        let all = self.catalog().inner.mappings.read().unwrap_or_else(PoisonError::into_inner);
        all.by_number.values().map(Arc::clone).collect()
    }

    /// Refuses a queue or a stream on a host without services, where nothing would read it.
    #[cfg(feature = "http")]
    pub(crate) fn expect_services(&self, source_arn: Option<&str>) -> Result<(), Error> {
        #[cfg(feature = "services")]
        if self.services().is_some() {
            return Ok(());
        }
        match (SourceKind::of(source_arn), source_arn) {
            (SourceKind::Kinesis | SourceKind::DynamoDb, Some(arn)) => Err(no_stream(arn)),
            (SourceKind::Sqs, _) => Err(no_queue()),
            _ => Ok(()),
        }
    }

    /// Returns the ARN of a function that is there, for a mapping.
    fn mapped_function(&self, target: Target) -> Result<String, Error> {
        let target = self.ours(target)?;
        let record = self.catalog().record(&target.name);
        let there = record.is_some_and(|it| it.qualified(target.qualifier.as_deref()).is_some());
        if !there {
            let arn = self.arns().of_text(target.name.as_str(), target.qualifier.as_deref());
            return Err(Error::parameter(format!("Function does not exist: {arn}")));
        }
        Ok(self.arns().of_text(target.name.as_str(), target.qualifier.as_deref()))
    }
}

impl Inner {
    async fn keep_mapping(&self, mapping: Mapping) -> Result<Arc<Mapping>, Error> {
        self.keep_resource(key(mapping.number), Some(&mapping)).await?;
        let mapping = Arc::new(mapping);
        let mut all = self.mappings.write().unwrap_or_else(PoisonError::into_inner);
        all.by_number.insert(mapping.number, Arc::clone(&mapping));
        Ok(mapping)
    }
}

fn check_filters(settings: &BTreeMap<String, Value>) -> Result<(), Error> {
    let filters = settings.get("FilterCriteria").and_then(|it| it["Filters"].as_array());
    let patterns = filters.into_iter().flatten().map(|it| it["Pattern"].as_str().unwrap_or("{}"));
    match patterns.into_iter().all(filter::is_pattern) {
        true => Ok(()),
        false => Err(Error::parameter("Invalid filter pattern definition.")),
    }
}

/// Tells whether a mapping is of the same function and source.
fn is_same(
    mapping: &Mapping,
    function_arn: &str,
    source_arn: Option<&str>,
    settings: &BTreeMap<String, Value>,
) -> bool {
    let same = |name: &str| mapping.settings.get(name) == settings.get(name);
    mapping.function_arn == function_arn
        && mapping.source_arn.as_deref() == source_arn
        && same("Topics")
        && (source_arn.is_some()
            || servers(settings).any(|it| servers(&mapping.settings).any(|other| it == other)))
}

/// Refuses a mapping with these settings beside one of the same source and function.
fn already(other: &Mapping, settings: &BTreeMap<String, Value>) -> Error {
    let name = other.function_arn.splitn(7, ':').nth(6).unwrap_or_default();
    let id = &other.id;
    let end = format!("Please update or delete the existing mapping with UUID {id}");
    Error::conflict(match (SourceKind::of(other.source_arn.as_deref()), &other.source_arn) {
        (SourceKind::Sqs, Some(arn)) => format!(
            "An event source mapping with SQS arn (\" {arn} \") and function (\" {name} \") already exists. {end}"
        ),
        (_, Some(arn)) => format!(
            "The event source arn (\" {arn} \") and function (\" {name} \") provided mapping already exists. {end}"
        ),
        (_, None) => {
            let topics = other.settings.get("Topics").and_then(Value::as_array);
            let topics = topics.into_iter().flatten().filter_map(Value::as_str);
            format!(
                "An event source mapping with event source (\"{}\"), function (\"{}\"), topics (\"{}\") already \
                 exists. {end}",
                servers(settings).collect::<Vec<_>>().join(","),
                other.function_arn,
                topics.collect::<Vec<_>>().join(",")
            )
        }
    })
}

/// The servers of a Kafka cluster outside AWS.
fn servers(settings: &BTreeMap<String, Value>) -> impl Iterator<Item = &str> {
    let list = settings
        .get("SelfManagedEventSource")
        .and_then(|it| it["Endpoints"]["KAFKA_BOOTSTRAP_SERVERS"].as_array());
    list.into_iter().flatten().filter_map(Value::as_str)
}
