//! Writes OCI image layouts for tests.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::Digest as _;

/// An image layout that a test writes.
#[derive(Debug)]
pub(crate) struct Layout {
    folder: PathBuf,
    images: Vec<Value>,
}

/// A file of a layer: its path, its mode and its content; a link with the mode [`LINK`] has its
/// target as content.
pub(crate) type File<'a> = (&'a str, u32, &'a [u8]);

impl Layout {
    /// Makes the folder of a layout without images.
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder, images: Vec::new() }
    }

    /// Adds an image of these layers, tar files, under a tag. `config` is the `config` of its
    /// configuration. Returns the digest of its manifest.
    pub(crate) fn image(&mut self, tag: &str, layers: &[Vec<u8>], config: &Value) -> String {
        self.image_for("amd64", tag, layers, config)
    }

    pub(crate) fn image_for(
        &mut self,
        architecture: &str,
        tag: &str,
        layers: &[Vec<u8>],
        config: &Value,
    ) -> String {
        let contents: Vec<String> = layers.iter().map(|tar| digest(tar)).collect();
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let layers: Vec<Value> = layers.iter().map(|tar| self.blob(layer, tar)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": contents },
        });
        let kind = "application/vnd.oci.image.config.v1+json";
        let config = self.blob(kind, config.to_string().as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers,
        });
        let mut descriptor = self.blob(kind, manifest.to_string().as_bytes());
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let name = |it: &Value| it["annotations"]["org.opencontainers.image.ref.name"].clone();
        self.images.retain(|it| name(it) != tag);
        self.images.push(descriptor.clone());
        let index = json!({ "schemaVersion": 2, "manifests": self.images });
        std::fs::write(self.folder.join("index.json"), index.to_string()).unwrap();
        descriptor["digest"].as_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest.replace(':', "/"))
    }

    fn blob(&self, kind: &str, content: &[u8]) -> Value {
        let digest = digest(content);
        std::fs::write(self.path(&digest), content).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": content.len() })
    }
}

/// The mode of a symbolic link.
pub(crate) const LINK: u32 = 0o120_777;

/// Packs files into the tar file of a layer.
pub(crate) fn layer(files: &[File<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        append(&mut tar, path, *mode, content);
    }
    tar.into_inner().unwrap()
}

/// Packs the machine's programs with the libraries they need, and folders below which files are
/// left out that `skip` names.
pub(crate) fn machine_layer(
    programs: &[(&Path, &str)],
    folders: &[&Path],
    skip: fn(&Path) -> bool,
) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut libraries = std::collections::BTreeSet::new();
    for (program, inside) in programs {
        append(&mut tar, inside.trim_start_matches('/'), 0o755, &std::fs::read(program).unwrap());
        libraries.extend(needed(program));
    }
    let mut waiting: Vec<PathBuf> = folders.iter().map(|it| it.to_path_buf()).collect();
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if skip(&path) {
                continue;
            }
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            if path.extension().is_some_and(|it| it == "so") {
                libraries.extend(needed(&path));
            }
            let inside = path.strip_prefix("/").unwrap().to_str().unwrap().to_owned();
            append(&mut tar, &inside, 0o755, &std::fs::read(&path).unwrap());
        }
    }
    for library in libraries {
        let inside = library.trim_start_matches('/').to_owned();
        append(&mut tar, &inside, 0o755, &std::fs::read(&library).unwrap());
    }
    tar.into_inner().unwrap()
}

/// Returns the libraries that a program needs, as ldd(1) names them.
fn needed(program: &Path) -> Vec<String> {
    let output = std::process::Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(str::to_owned).collect()
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    if mode == LINK {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        let target = std::str::from_utf8(content).unwrap();
        return tar.append_link(&mut header, path, target).unwrap();
    }
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, path, content).unwrap();
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
