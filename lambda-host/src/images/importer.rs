//! Brings a container image into the code store.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use lambda_sandbox::LAYERS_MAX;
use lambda_sandbox::oci::{ImageLimits, ImageReference, PackedImage};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::ImportedImage;
use super::registry::Repository;
use super::sources::{ImageSources, Registry};
use super::uri::{ImageUri, Place, Wanted};
use crate::blocking::blocking;
use crate::code::{CodeDigest, CodeStore};
use crate::error::{Error, with_causes};
use crate::function::architecture::Architecture;
use crate::function::image::Image;

/// Brings container images into the code store, a few at a time.
#[derive(Clone, Debug)]
pub(crate) struct Importer {
    sources: Arc<ImageSources>,
    code: CodeStore,
    turns: Arc<Semaphore>,
}

impl Importer {
    pub(crate) fn new(sources: ImageSources, code: CodeStore) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE_MAX));
        Self { sources: Arc::new(sources), code, turns }
    }

    /// Finds the image of a URI and unpacks the layers that the store lacks. Of several images the
    /// one for `architecture` is taken.
    pub(crate) async fn import(
        &self,
        uri: &str,
        architecture: Architecture,
    ) -> Result<ImportedImage, Error> {
        let parsed = ImageUri::parse(uri).ok_or_else(|| {
            Error::parameter(format!(
                "Source image {uri} is not valid. Provide a valid source image."
            ))
        })?;
        // The semaphore is never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let (importer, uri, runtime) = (self.clone(), uri.to_owned(), Handle::current());
        blocking(move || {
            let _turn = turn;
            let architecture = match architecture {
                Architecture::X86_64 => "amd64",
                Architecture::Arm64 => "arm64",
            };
            let imported = importer
                .open(&parsed, architecture, &runtime)
                .and_then(|packed| importer.unpack(&uri, &parsed, &packed));
            imported.map_err(|error| refused(&uri, error))
        })
        .await
    }

    fn open(
        &self,
        uri: &ImageUri,
        architecture: &str,
        runtime: &Handle,
    ) -> Result<PackedImage, Failure> {
        let not_found = || {
            let source = io::Error::from(io::ErrorKind::NotFound);
            Failure::Image(lambda_sandbox::Error::step("looking for the registry", source))
        };
        match &uri.place {
            Place::Layout(path) if self.sources.paths => {
                open_layout(path, &uri.wanted, architecture)
            }
            Place::Layout(_) => Err(not_found()),
            Place::Repository { registry, repository } => match self.sources.registry(registry) {
                Some(Registry::Folder(folder)) => {
                    open_layout(&folder.join(repository), &uri.wanted, architecture)
                }
                Some(Registry::Server(address)) => {
                    let repository = Repository {
                        address: *address,
                        registry: registry.clone(),
                        name: repository.clone(),
                        wanted: uri.wanted.clone(),
                        runtime: runtime.clone(),
                    };
                    let only = ImageReference::Only;
                    Ok(PackedImage::open_files(Box::new(repository), only, architecture)?)
                }
                None => Err(not_found()),
            },
        }
    }

    fn unpack(
        &self,
        uri: &str,
        parsed: &ImageUri,
        packed: &PackedImage,
    ) -> Result<ImportedImage, Failure> {
        let folders = packed.folders(self.folders_max()?);
        let image = Image {
            uri: uri.to_owned(),
            resolved_uri: format!("{}@sha256:{}", parsed.repository_uri, packed.digest()),
            layers: folders.iter().map(|it| it.name.clone()).collect(),
            entry_point: texts(packed.entry_point())?,
            command: texts(packed.command())?,
            environment: environment(packed.environment())?,
            working_directory: text(packed.working_directory().into())?,
        };
        let digest =
            CodeDigest::from_hex(packed.digest()).ok_or_else(|| Failure::unsupported("digest"))?;
        let (mut leases, mut bytes) = (Vec::new(), 0);
        for layers in folders {
            let lease = self.code.lease_layer(&layers.name);
            let unpack = |folder: &Path| -> Result<(), Failure> {
                let left = IMAGE_BYTES_MAX.saturating_sub(bytes);
                let limits = ImageLimits::default().with_layer_bytes_max(left);
                bytes += packed.unpack_layers(layers.places, folder, limits)?.bytes;
                Ok(())
            };
            self.code.put_folder(&lease, unpack)?;
            leases.push(lease);
        }
        Ok(ImportedImage { image, digest, leases })
    }

    /// Returns how many folders of layers a sandbox can have together, with the one that the host
    /// adds to them: the kernel takes a page with the paths of all.
    fn folders_max(&self) -> Result<usize, Failure> {
        let path = self.code.lease_layer(NAME_OF_A_FOLDER).folder();
        match (PATHS_BYTES_MAX / (path.as_os_str().len() + 1)).min(LAYERS_MAX).checked_sub(1) {
            None | Some(0) => Err(Failure::Host(Error::parameter(
                "The path of this host's data folder is too long for images.".to_owned(),
            ))),
            Some(folders) => Ok(folders),
        }
    }
}

fn open_layout(path: &Path, wanted: &Wanted, architecture: &str) -> Result<PackedImage, Failure> {
    let open = |reference| PackedImage::open(path, reference, architecture);
    let found = match wanted {
        Wanted::Tag(tag) => open(ImageReference::Name(tag)),
        Wanted::Digest(digest) => open(ImageReference::Digest(digest)),
        // A layout of one image need not name it.
        Wanted::Latest => open(ImageReference::Name("latest"))
            .or_else(|error| open(ImageReference::Only).map_err(|_| error)),
    };
    Ok(found?)
}

/// Why an image cannot be had.
#[derive(Debug)]
pub(super) enum Failure {
    Image(lambda_sandbox::Error),
    Host(Error),
}

impl Failure {
    fn unsupported(what: &'static str) -> Self {
        Self::Image(lambda_sandbox::Error::invalid("image", what, "a host cannot use it"))
    }
}

impl From<lambda_sandbox::Error> for Failure {
    fn from(error: lambda_sandbox::Error) -> Self {
        Self::Image(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

/// Tells in AWS's words why an image is not taken, and in our own in the host's log.
fn refused(uri: &str, failure: Failure) -> Error {
    let error = match failure {
        Failure::Image(error) => error,
        Failure::Host(error) => return error,
    };
    tracing::warn!(uri, error = with_causes(&error), "an image is not taken");
    match &error {
        lambda_sandbox::Error::Failed { source, .. }
            if source.kind() == io::ErrorKind::NotFound =>
        {
            Error::parameter(format!(
                "Source image {uri} does not exist. Provide a valid source image."
            ))
        }
        lambda_sandbox::Error::Invalid { .. } => Error::parameter(format!(
            "The image manifest, config or layer media type for the source image {uri} is not supported."
        )),
        _ => Error::Backend(error),
    }
}

fn texts(words: Vec<OsString>) -> Result<Vec<String>, Failure> {
    words.into_iter().map(text).collect()
}

fn text(word: OsString) -> Result<String, Failure> {
    let text = word.into_string().unwrap_or_default();
    match text.contains('\0') || text.len() > TEXT_BYTES_MAX {
        true => Err(Failure::unsupported("a text of the configuration")),
        false => Ok(text),
    }
}

fn environment(variables: Vec<(OsString, OsString)>) -> Result<Vec<(String, String)>, Failure> {
    let mut found = Vec::new();
    let mut bytes = 0;
    for (name, value) in variables {
        let (name, value) = (text(name)?, text(value)?);
        bytes += name.len() + value.len() + 2;
        if !name.is_empty() {
            found.push((name, value));
        }
    }
    match bytes > ENVIRONMENT_BYTES_MAX || found.len() > VARIABLES_MAX {
        true => Err(Failure::unsupported("the environment")),
        false => Ok(found),
    }
}

/// Images that are brought here at the same time; further ones wait.
const AT_ONCE_MAX: usize = 2;
/// The most bytes that are unpacked for one image. AWS: 10 GB.
const IMAGE_BYTES_MAX: u64 = 10 << 30;
/// The most bytes of the layers' paths. Mount options take at most 4,096 bytes.
const PATHS_BYTES_MAX: usize = 3900;
/// As long as the name of each folder of layers.
const NAME_OF_A_FOLDER: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// The longest word or value of an image's configuration, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// The most bytes of an image's environment. A sandbox takes 64 KiB, with what Lambda adds and the
/// function's settings.
const ENVIRONMENT_BYTES_MAX: usize = 48 * 1024;
const VARIABLES_MAX: usize = 1024;
