//! Layers: publish, find, remove, and their policies.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use crate::catalog::bounds::{LAYER_VERSIONS_MAX, check_count};
use crate::catalog::layers::{LayerVersion, key, last_key};
use crate::catalog::registry::encode;
use crate::catalog::{Inner, new_revision};
use crate::clock::now_ms;
use crate::code::CodeLease;
use crate::error::{Error, ReadWith};
use crate::function::config::UsedLayer;
use crate::function::policy::{Policy, Statement, expect_revision};
use crate::host::Host;

/// A new version of a layer.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NewLayer {
    /// The description that the caller gave.
    pub description: String,
    /// The licence, as its owner writes it.
    pub license: Option<String>,
    /// The runtimes that it is for.
    pub runtimes: Option<Vec<String>>,
    /// The architectures that it is for.
    pub architectures: Option<Vec<String>>,
}

impl Host {
    /// Publishes a version of a layer. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCode`] for an archive that cannot be used; [`Error::Io`] and
    /// [`Error::Registry`] when it cannot be kept.
    pub async fn publish_layer(
        &self,
        name: &str,
        new: NewLayer,
        zip: Bytes,
    ) -> Result<Arc<LayerVersion>, Error> {
        let name = name.to_owned();
        self.catalog()
            .change(|inner| async move {
                let (code, lease) = inner.put_code(zip).await?;
                let _turn = inner.changing.lock().await;
                inner.check_code_bytes(code.size_bytes)?;
                let count = inner.layers().versions.len() + 1;
                check_count(count, true, LAYER_VERSIONS_MAX, "versions of layers")?;
                let version = inner.layers().last.get(&name).map_or(1, |it| it + 1);
                let layer = LayerVersion {
                    name: name.clone(),
                    version,
                    code,
                    description: new.description,
                    license: new.license,
                    runtimes: new.runtimes,
                    architectures: new.architectures,
                    created_at_ms: now_ms(),
                    policy: Policy::default(),
                    revision: String::new(),
                };
                let rows = vec![
                    (key(&name, version), Some(encode(&layer)?)),
                    (last_key(&name), Some(encode(&(&name, version))?)),
                ];
                inner.keep_resources(rows).await?;
                let layer = Arc::new(layer);
                let mut layers = inner.layers.write().unwrap_or_else(PoisonError::into_inner);
                layers.last.insert(name.clone(), version);
                layers.versions.insert((name, version), (Arc::clone(&layer), lease));
                Ok(layer)
            })
            .await
    }

    /// Removes a version of a layer; functions that use it keep its files. One that is not there is
    /// removed already.
    ///
    /// # Errors
    ///
    /// [`Error::Registry`] when the removal cannot be kept.
    pub async fn remove_layer(&self, name: &str, version: u64) -> Result<(), Error> {
        let name = name.to_owned();
        self.catalog()
            .change(|inner| async move {
                let _turn = inner.changing.lock().await;
                inner.keep_resources(vec![(key(&name, version), None)]).await?;
                let mut layers = inner.layers.write().unwrap_or_else(PoisonError::into_inner);
                layers.versions.remove(&(name, version));
                Ok(())
            })
            .await
    }

    /// Returns a version of a layer.
    #[must_use]
    pub fn layer(&self, name: &str, version: u64) -> Option<Arc<LayerVersion>> {
        let layers = self.catalog().inner.layers();
        layers.versions.get(&(name.to_owned(), version)).map(|(layer, _)| Arc::clone(layer))
    }

    /// Returns the versions of a layer, newest first.
    #[must_use]
    pub fn layer_versions(&self, name: &str) -> Vec<Arc<LayerVersion>> {
        let layers = self.catalog().inner.layers();
        let its = layers.versions.range((name.to_owned(), 0)..=(name.to_owned(), u64::MAX));
        its.rev().map(|(_, (layer, _))| Arc::clone(layer)).collect()
    }

    /// Returns the last version of each layer that `suits`, ordered by name.
    pub fn layers(&self, suits: impl Fn(&LayerVersion) -> bool) -> Vec<Arc<LayerVersion>> {
        let layers = self.catalog().inner.layers();
        let mut last: BTreeMap<&str, &Arc<LayerVersion>> = BTreeMap::new();
        for (layer, _) in layers.versions.values().filter(|(layer, _)| suits(layer)) {
            last.insert(&layer.name, layer);
        }
        last.into_values().map(Arc::clone).collect()
    }

    /// Changes the policy of a layer's version; returns its new revision.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for what is not there; [`Error::Conflict`], [`Error::RevisionDiffers`],
    /// [`Error::TooLarge`]; [`Error::Registry`] when it cannot be kept.
    pub async fn change_layer_policy(
        &self,
        name: &str,
        version: u64,
        expected_revision: Option<String>,
        change: LayerPolicyChange,
    ) -> Result<String, Error> {
        let (name, arn) = (name.to_owned(), self.arns().layer(name, Some(version)));
        self.catalog()
            .change(|inner| async move {
                let _turn = inner.changing.lock().await;
                let found = inner.layer(&name, version);
                let (layer, lease) = found.ok_or_else(|| no_layer(&arn))?;
                let mut layer = LayerVersion::clone(&layer);
                match change {
                    LayerPolicyChange::Add(id, json) => {
                        let expected = expected_revision.as_deref();
                        expect_revision(&layer.revision, expected, ReadWith::LayerPolicy)?;
                        layer.policy.add(Statement { id, json })?;
                    }
                    LayerPolicyChange::Remove(id) => {
                        layer.policy.remove(&id)?;
                        let expected = expected_revision.as_deref();
                        expect_revision(&layer.revision, expected, ReadWith::LayerPolicy)?;
                    }
                }
                layer.revision = new_revision();
                inner.keep_resource(key(&name, version), Some(&layer)).await?;
                let revision = layer.revision.clone();
                let mut layers = inner.layers.write().unwrap_or_else(PoisonError::into_inner);
                layers.versions.insert((name, version), (Arc::new(layer), lease));
                Ok(revision)
            })
            .await
    }

    /// Returns the policy of a layer's version, and its revision.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when the version or a policy of it is not there.
    pub fn layer_policy(&self, name: &str, version: u64) -> Result<(Policy, String), Error> {
        let arn = self.arns().layer(name, Some(version));
        let layer = self.layer(name, version).ok_or_else(|| no_layer(&arn))?;
        if layer.policy.is_empty() {
            return Err(Error::not_found("No policy is associated with the given resource."));
        }
        Ok((layer.policy.clone(), layer.revision.clone()))
    }

    /// Finds the layers of these ARNs for a function's settings.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] for a layer that is not there or of another region, for two versions of
    /// one layer, and for more than 5.
    pub fn used_layers(&self, arns: &[String]) -> Result<Vec<UsedLayer>, Error> {
        if arns.len() > LAYERS_MAX {
            return Err(Error::parameter(format!(
                "Cannot reference more than {LAYERS_MAX} layers."
            )));
        }
        let mut used: Vec<UsedLayer> = Vec::new();
        for arn in arns {
            let mut parts = arn.split(':').skip(3);
            let mut next = || parts.next().unwrap_or_default();
            let (region, account, _, name, version) = (next(), next(), next(), next(), next());
            if region != self.arns().region() {
                return Err(Error::parameter(format!(
                    "Layers are not in the same region as the function. Layers are expected to be in region {}.",
                    self.arns().region()
                )));
            }
            let version: u64 = version.parse().unwrap_or(0);
            let layer = self.layer(name, version).filter(|_| account == self.arns().account());
            let Some(layer) = layer else {
                return Err(Error::parameter(format!("Layer version {arn} does not exist.")));
            };
            let of_same = |it: &&UsedLayer| {
                it.arn.rsplit_once(':').map(|it| it.0) == arn.rsplit_once(':').map(|it| it.0)
            };
            if let Some(other) = used.iter().find(of_same) {
                return Err(Error::parameter(format!(
                    "Two different versions of the same layer are not allowed to be referenced in the same \
                     function. {} and {arn} are versions of the same layer.",
                    other.arn
                )));
            }
            used.push(UsedLayer { arn: arn.clone(), code: layer.code.clone() });
        }
        Ok(used)
    }
}

/// A change of a layer's policy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LayerPolicyChange {
    /// A statement of this name is added: its JSON.
    Add(String, Value),
    /// The statement of this name is removed.
    Remove(String),
}

impl Inner {
    fn layer(&self, name: &str, version: u64) -> Option<(Arc<LayerVersion>, CodeLease)> {
        self.layers().versions.get(&(name.to_owned(), version)).cloned()
    }
}

fn no_layer(arn: &str) -> Error {
    Error::not_found(format!("Layer version {arn} does not exist."))
}

const LAYERS_MAX: usize = 5;
