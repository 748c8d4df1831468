//! The files of a function: leases them in the worker's code store, and fetches missing ones.

use std::path::PathBuf;

use super::context::Context;
use super::protocol::Deployment;
use crate::blocking::blocking;
use crate::code::{CodeDigest, CodeLease, CodeStore};
use crate::error::{Error, with_causes};

/// A hold on the files of a function, which need not be there yet.
#[derive(Debug)]
pub(super) enum Files {
    /// The archives of its code and its layers.
    Archives { code: CodeLease, layers: Option<CodeLease> },
    /// The layers of its container image, the lowest first.
    Image(Vec<CodeLease>),
}

impl Files {
    /// Holds the files of a function in `store`.
    pub(super) fn of(deployment: &Deployment, store: &CodeStore) -> Self {
        let config = &deployment.config;
        if let Some(image) = &config.image {
            return Self::Image(image.layers.iter().map(|it| store.lease_layer(it)).collect());
        }
        let layers: Vec<&CodeDigest> = config.layers.iter().map(|it| &it.code).collect();
        let layers = (!layers.is_empty()).then(|| store.lease_merged(&layers));
        Self::Archives { code: store.lease(&deployment.code), layers }
    }

    /// Fetches the files that the store does not have.
    pub(super) async fn bring(
        &self,
        context: &Context,
        deployment: &Deployment,
    ) -> Result<(), String> {
        match self {
            Self::Archives { code, layers } => {
                bring_code(code, context, &deployment.code).await?;
                match layers {
                    Some(layers) => bring_layers(layers, context, deployment).await,
                    None => Ok(()),
                }
            }
            Self::Image(layers) => {
                let layers = layers.clone();
                let here = blocking(move || Ok(layers.iter().all(CodeLease::is_present))).await;
                match here.map_err(|error| with_causes(&error))? {
                    true => Ok(()),
                    // A host sends archives to its workers, and no layers.
                    false => Err("the layers of the image are not on this worker".to_owned()),
                }
            }
        }
    }
}

/// Brings the function's code here where it is not.
async fn bring_code(
    lease: &CodeLease,
    context: &Context,
    digest: &CodeDigest,
) -> Result<(), String> {
    let here = lease.clone();
    let here = blocking(move || Ok(here.is_present())).await;
    if here.map_err(|error| with_causes(&error))? {
        return Ok(());
    }
    let fetched = async {
        let zip = context.fetch(digest).await?;
        let store = context.code.clone();
        let (found, other) = blocking(move || store.put(&zip)).await?;
        // Held by `lease` from here on.
        drop(other);
        Ok::<_, Error>(found)
    };
    match fetched.await {
        Ok(found) if found.sha256 == digest.sha256 => Ok(()),
        Ok(found) => Err(format!("code {} came for {}", found.hex(), digest.hex())),
        Err(error) => Err(format!("code {}: {}", digest.hex(), with_causes(&error))),
    }
}

/// Brings the files of the function's layers here where they are not.
async fn bring_layers(
    lease: &CodeLease,
    context: &Context,
    deployment: &Deployment,
) -> Result<(), String> {
    let fetched = async {
        let here = lease.clone();
        if blocking(move || Ok(here.is_present())).await? {
            return Ok(());
        }
        let mut zips = Vec::new();
        for layer in &deployment.config.layers {
            zips.push(context.fetch(&layer.code).await?);
        }
        let (store, lease) = (context.code.clone(), lease.clone());
        blocking(move || store.put_merged(&lease, &zips)).await
    };
    fetched.await.map_err(|error: Error| format!("layers: {}", with_causes(&error)))
}

/// Returns the folders of layers, the lowest first.
pub(super) fn folders(layers: &[CodeLease]) -> Vec<PathBuf> {
    layers.iter().map(CodeLease::folder).collect()
}
