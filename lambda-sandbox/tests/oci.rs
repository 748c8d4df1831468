//! Roots from OCI images: their contents, refused images, and what stays in the store.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use common::backend;
use lambda_sandbox::oci::{ImageLimits, ImageStore, OciImage};
use lambda_sandbox::{Backend, Error};
use sha2::Digest as _;
use tar::{Builder, EntryType, Header};

/// An image layout that a test writes.
struct Layout {
    folder: tempfile::TempDir,
    layers: Vec<serde_json::Value>,
    contents: Vec<String>,
}

fn digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

impl Layout {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).expect("made");
        std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("written");
        Self { folder, layers: Vec::new(), contents: Vec::new() }
    }

    fn blob(&self, media_type: &str, content: &[u8]) -> serde_json::Value {
        let digest = digest(content);
        std::fs::write(self.path(&digest), content).expect("written");
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.path().join("blobs").join(digest.replace(':', "/"))
    }

    fn layer(&mut self, compression: &str, tar: &[u8]) {
        let compressed = match compression {
            "+gzip" => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                gzip.write_all(tar).expect("compressed");
                gzip.finish().expect("compressed")
            }
            "+zstd" => {
                let level = ruzstd::encoding::CompressionLevel::Fastest;
                ruzstd::encoding::compress_to_vec(tar, level)
            }
            _ => tar.to_vec(),
        };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{compression}");
        self.contents.push(digest(tar));
        let layer = self.blob(&media_type, &compressed);
        self.layers.push(layer);
    }

    /// Writes manifest and index, and returns the layout's folder.
    fn finish(&self) -> &Path {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Env": ["PATH=/bin", "A=b=c"], "Entrypoint": ["/bin/sh", "-c"],
                "Cmd": ["echo $A; pwd"], "WorkingDir": "/srv"},
            "rootfs": {"type": "layers", "diff_ids": self.contents},
        });
        let config =
            self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let manifest =
            serde_json::json!({"schemaVersion": 2, "config": config, "layers": self.layers});
        let manifest = self
            .blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
        std::fs::write(self.folder.path().join("index.json"), index.to_string()).expect("written");
        self.folder.path()
    }
}

/// An entry of a layer: path, type, mode, and content or target.
type Entry<'a> = (&'a str, EntryType, u32, &'a [u8]);

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, mode, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(1234);
        header.set_mtime(1_000_000_000);
        // Bypasses the checks of the tar library, because a hostile image was not written with it.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if kind.is_symlink() || kind.is_hard_link() {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content);
            header.set_size(0);
        } else {
            header.set_size(content.len() as u64);
        }
        header.set_cksum();
        let content = if header.size().expect("a size") == 0 { &[][..] } else { content };
        builder.append(&header, content).expect("added");
    }
    builder.into_inner().expect("finished")
}

const FILE: EntryType = EntryType::Regular;
const FOLDER: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

fn store() -> Option<(tempfile::TempDir, ImageStore)> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
    match ImageStore::open(folder.path().join("store")) {
        Ok(store) => Some((folder, store)),
        Err(error @ Error::Unavailable { .. }) => {
            test_support::left_out("OCI images", &error.to_string());
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn an_image_of_three_layers_runs() {
    let Some(backend) = backend("OCI images") else { return };
    let Some((_folder, store)) = store() else { return };
    let Ok(busybox) = std::fs::read("/bin/busybox") else {
        return test_support::left_out("OCI images that run", "no busybox");
    };
    let mut layout = Layout::new();
    layout.layer(
        "+gzip",
        &tar(&[
            ("./", FOLDER, 0o755, b""),
            ("bin/busybox", FILE, 0o4755, &busybox),
            ("bin/sh", LINK, 0o777, b"busybox"),
            ("bin/cat", HARD, 0o755, b"bin/busybox"),
            ("bin/ls", HARD, 0o755, b"/bin/busybox"),
            ("srv/", FOLDER, 0o755, b""),
            ("etc/keep", FILE, 0o644, b"first"),
            ("etc/gone", FILE, 0o644, b"first"),
            ("old/a", FILE, 0o644, b"first"),
            ("old/b", FILE, 0o644, b"first"),
            ("dev/null", EntryType::Char, 0o666, b""),
        ]),
    );
    layout.layer(
        "+zstd",
        &tar(&[
            ("etc/.wh.gone", FILE, 0o644, b""),
            ("etc/keep", FILE, 0o644, b"second"),
            ("old/.wh..wh..opq", FILE, 0o644, b""),
            ("old/c", FILE, 0o644, b"second"),
        ]),
    );
    let third = [
        ("bin/", FOLDER, 0o755, &b""[..]),
        ("sbin", LINK, 0o777, b"bin"),
        ("sbin/x", FILE, 0o644, b"third"),
    ];
    layout.layer("", &tar(&third));
    let image = store.import(layout.finish(), None).expect("imported");
    assert_eq!((image.layers.len(), image.left_out), (3, 1));
    let run = async |image: &OciImage, command: &[&str]| {
        let done = backend.run(image.spec(command).with_cpus(1.0)).await.expect("run");
        assert!(done.finished.is_success(), "{done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    assert_eq!(run(&image, &[]).await, "b=c\n/srv\n");
    let script = "cat /etc/keep; echo; ls /etc /old /bin/x; ls -l /bin/busybox | cut -c1-10";
    let said = run(&image, &["/bin/sh", "-c", script]).await;
    assert_eq!(said, "second\n/bin/x\n\n/etc:\nkeep\n\n/old:\nc\n-rwxr-xr-x\n");

    // A second import uses the unpacked layers: their blobs are not read again.
    for layer in &layout.layers {
        std::fs::remove_file(layout.path(layer["digest"].as_str().expect("text")))
            .expect("removed");
    }
    assert_eq!(store.import(layout.folder.path(), None).expect("cached").layers, image.layers);
    // The same layout in a tar file.
    let file = layout.folder.path().with_extension("tar");
    let mut builder = Builder::new(std::fs::File::create(&file).expect("made"));
    builder.append_dir_all(".", layout.folder.path()).expect("added");
    builder.finish().expect("finished");
    let again = store.import(&file, None).expect("imported from a tar file");
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(again.layers, image.layers);
    let file = image.layers[0].join("bin/busybox").metadata().expect("there");
    assert_eq!((file.uid(), file.mtime(), file.mode() & 0o7777), (0, 1_000_000_000, 0o755));
}

/// Layers that hide, replace and merge one another's files.
fn entangled(busybox: &[u8]) -> Vec<Vec<u8>> {
    let bottom = [("a/z", FILE, 0o644, &b"bottom"[..]), ("a/b/c", FILE, 0o644, b"bottom")];
    let first = [
        ("bin/busybox", FILE, 0o755, busybox),
        ("a/b/c", FILE, 0o644, b"first"),
        ("a/d/e", FILE, 0o644, b"first"),
        ("f", FILE, 0o644, b"first"),
        ("g/h", FILE, 0o644, b"first"),
        ("l", LINK, 0o777, b"a"),
        ("o/x", FILE, 0o644, b"first"),
        ("srv/", FOLDER, 0o755, b""),
        ("w/", FOLDER, 0o755, b""),
    ];
    let second = [
        ("a/.wh.b", FILE, 0o644, &b""[..]),
        ("a/.wh.never", FILE, 0o644, b""),
        ("f/in", FILE, 0o644, b"second"),
        ("l/in", FILE, 0o644, b"second"),
        ("new/.wh.x", FILE, 0o644, b""),
        ("w/", FOLDER, 0o711, b""),
    ];
    let third = [
        ("o/.wh..wh..opq", FILE, 0o644, &b""[..]),
        ("o/z", FILE, 0o600, b"third"),
        ("a/b/late", FILE, 0o644, b"third"),
        ("a/d", LINK, 0o777, b"../o"),
        ("g", FILE, 0o640, b"third"),
        ("new/x", FILE, 0o644, b"third"),
    ];
    let fourth = [(".wh.f", FILE, 0o644, &b""[..]), ("a/b/late", FILE, 0o755, b"fourth")];
    [&bottom[..], &first, &second, &third, &fourth].map(tar).to_vec()
}

#[tokio::test]
async fn an_image_of_127_layers_looks_as_its_overlay_would() {
    let Some(backend) = backend("OCI images of many layers") else { return };
    let Some((_folder, store)) = store() else { return };
    let Ok(busybox) = std::fs::read("/bin/busybox") else {
        return test_support::left_out("OCI images of many layers", "no busybox");
    };
    let script = "cd /; for it in $(busybox find a f g l new o w 2>/dev/null | busybox sort); do \
        busybox stat -c '%n %F %a' $it; [ -f $it ] && busybox cat $it; done; \
        busybox ls /pad | busybox wc -l";
    let mut seen = Vec::new();
    for more in [1, 122] {
        let mut layout = Layout::new();
        entangled(&busybox).iter().for_each(|it| layout.layer("", it));
        for number in 0..more {
            let name = format!("pad/{number}");
            layout.layer("", &tar(&[(&name[..], FILE, 0o644, &b"x"[..])]));
        }
        let image = store.import(layout.finish(), None).expect("imported");
        let spec = image.spec(&["/bin/busybox", "sh", "-c", script]).with_cpus(1.0);
        let done = backend.run(spec).await.expect("run");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let (files, pads) = text.trim().rsplit_once('\n').expect("lines");
        assert_eq!(pads.trim(), more.to_string(), "{done:?}");
        seen.push((image.layers.len(), files.to_owned()));
    }
    assert_eq!((seen[0].0, seen[1].0), (6, lambda_sandbox::LAYERS_MAX));
    assert!(seen[0].1.contains("a/b/late regular file 755\nfourth"), "{}", seen[0].1);
    assert_eq!(seen[0].1, seen[1].1);
    store.retain(|_| false).expect("emptied");
}

/// Imports a layer with these entries. Returns the error, and checks that nothing of the layer is
/// left.
fn refused(store: &(tempfile::TempDir, ImageStore), entries: &[Entry<'_>]) -> String {
    let mut layout = Layout::new();
    layout.layer("+gzip", &tar(entries));
    let error = store.1.import(layout.finish(), None).expect_err("refused");
    assert!(matches!(error, Error::Invalid { setting: "image", .. }), "{error:?}");
    nothing_left(store);
    error.to_string()
}

fn nothing_left(store: &(tempfile::TempDir, ImageStore)) {
    let entries = |name: &str| {
        let found = std::fs::read_dir(store.0.path().join("store").join(name)).expect("listed");
        found.flatten().filter(|entry| entry.file_name() != "gate").count()
    };
    assert_eq!((entries("layers"), entries("parts")), (0, 0));
}

#[test]
fn nothing_leads_out_of_a_layer() {
    let Some(store) = store() else { return };
    let outside = tempfile::tempdir().expect("a folder");
    let target = outside.path().to_str().expect("text");
    let in_target = format!("{target}/secret");
    std::fs::write(&in_target, "secret").expect("written");
    for entries in [
        &[("../x", FILE, 0o644, &b"x"[..])][..],
        &[("a/../../x", FILE, 0o644, b"x")],
        &[("a", HARD, 0o644, b"../../../etc/passwd")],
        &[("a", HARD, 0o644, in_target.as_bytes())],
        &[("a/.wh...", FILE, 0o644, b"")],
        &[("a", FILE, 0o644, b"x"), ("a/b", FILE, 0o644, b"x")],
        &[("a/b", FILE, 0o644, b"x"), ("a", FILE, 0o644, b"x")],
        &[("a", LINK, 0o777, b"a"), ("a/b", FILE, 0o644, b"x")],
    ] {
        refused(&store, entries);
    }
    // A path through a link ends in the layer, as if the layer were the root.
    let mut layout = Layout::new();
    layout.layer(
        "",
        &tar(&[
            (&target[1..], FOLDER, 0o755, b""),
            ("out", LINK, 0o777, target.as_bytes()),
            ("out/x", FILE, 0o644, b"x"),
            ("/abs", FILE, 0o644, b"x"),
            ("up", LINK, 0o777, b"../../.."),
            ("up/y", FILE, 0o644, b"y"),
        ]),
    );
    let image = store.1.import(layout.finish(), None).expect("imported");
    assert!(!outside.path().join("x").exists() && !Path::new("/y").exists());
    assert!(!Path::new("/abs").exists());
    for inside in [&in_target[1..].replace("secret", "x"), "abs", "y"] {
        assert!(image.layers[0].join(inside).exists(), "{inside}");
    }
    assert_eq!(std::fs::read_to_string(&in_target).expect("read"), "secret");
}

#[test]
fn digests_sizes_and_bounds_are_checked() {
    let Some(store) = store() else { return };
    let good = tar(&[("a", FILE, 0o644, &[7; 4096])]);
    let import = |change: &dyn Fn(&mut Layout)| {
        let mut layout = Layout::new();
        layout.layer("+gzip", &good);
        change(&mut layout);
        let error = store.1.import(layout.finish(), None).expect_err("refused").to_string();
        nothing_left(&store);
        error
    };
    let another = import(&|it| {
        let path = it.path(it.layers[0]["digest"].as_str().expect("text"));
        let mut content = std::fs::read(&path).expect("read");
        // A byte of the gzip header that no reader uses: the time.
        content[4] ^= 1;
        std::fs::write(path, content).expect("written");
    });
    assert!(another.contains("another digest"), "{another}");
    let size = import(&|it| it.layers[0]["size"] = 5.into());
    assert!(size.contains("end of file") || size.contains("bytes are due"), "{size}");
    let content = import(&|it| it.contents[0] = digest(b"other"));
    assert!(content.contains("content has another digest"), "{content}");
    import(&|it| it.contents.clear());
    import(&|it| it.layers[0]["digest"] = "sha256:../../../etc/passwd".into());
    import(&|it| it.layers[0]["mediaType"] = "application/zip".into());
    import(&|it| it.layers[0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd".into());
    import(&|it| {
        it.layers = vec![it.layers[0].clone(); 128];
        it.contents = vec![it.contents[0].clone(); 128];
    });

    let small = ImageLimits::default().with_layer_bytes_max(1 << 20).with_layer_entries_max(10);
    let bounded = (store.0, store.1.with_limits(small));
    let zeros = vec![0; 2 << 20];
    assert!(refused(&bounded, &[("a", FILE, 0o644, &zeros)]).contains("more than 1048576 bytes"));
    let names: Vec<String> = (0..11).map(|number| number.to_string()).collect();
    let many: Vec<Entry<'_>> =
        names.iter().map(|name| (&name[..], FILE, 0o644, &b""[..])).collect();
    assert!(refused(&bounded, &many).contains("more than 10 entries"));
    let deep = "d/".repeat(49);
    refused(
        &bounded,
        &[
            (&deep, FOLDER, 0o755, b""),
            (&format!("{deep}x"), LINK, 0o777, b"/"),
            (&format!("{}../x", "a/".repeat(20)), FILE, 0o644, b""),
        ],
    );
}

#[test]
fn what_a_crashed_import_has_left_is_swept() {
    let Some((folder, _store)) = store() else { return };
    let parts = folder.path().join("store/parts");
    std::fs::create_dir_all(parts.join("1-0/deep")).expect("made");
    std::fs::write(parts.join("1-0.lock"), "").expect("made");
    // A part whose process is alive is not removed.
    std::fs::create_dir_all(parts.join("1-1")).expect("made");
    let held = std::fs::File::create(parts.join("1-1.lock")).expect("made");
    held.lock().expect("locked");
    let store = ImageStore::open(folder.path().join("store")).expect("opened");
    assert!(!parts.join("1-0").exists() && !parts.join("1-0.lock").exists());
    assert!(parts.join("1-1").exists());
    store.retain(|_| false).expect("emptied");
}
