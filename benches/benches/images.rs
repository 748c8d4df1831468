//! Measures cold starts of functions of container images beside those of archives, with the same
//! program, in one run.
//!
//! ```text
//! cargo bench -p benches --features host --bench images
//! ```
//!
//! Needs root. Prints Markdown. The program is `examples/faas-host/functions/hello.rs`. Images have
//! the program in the top layer, over layers of 100 files each.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::functions::hello;
use lambda_host::{FunctionConfig, Host, ImageConfig, ImageSources};
use lambda_sandbox::linux::LinuxBackend;
use serde_json::{Value, json};
use sha2::Digest as _;

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::fs::read(hello(folder.path())).expect("compiled");
    let layouts = folder.path().join("layouts");
    let backend = LinuxBackend::new().expect("the linux backend, as root");
    let sources = ImageSources::default().with_folder("bench", &layouts);
    let host = Host::builder(Arc::new(backend)).with_images(sources).start().await.expect("a host");
    for layers in [1, 8, 24] {
        write_image(&layouts.join(format!("of{layers}")), layers, &program);
    }
    println!("| function | median | 90th |");
    println!("|---|---|---|");
    let mut times: Vec<(String, Vec<Duration>)> = Vec::new();
    // In turn, so that all see the same machine.
    for number in 0..ROUNDS {
        for (at, kind) in ["archive", "of1", "of8", "of24"].into_iter().enumerate() {
            let name = format!("{kind}-{number}");
            if kind == "archive" {
                let config = FunctionConfig::new(&name, "provided.al2023", "bootstrap");
                let config = config.expect("settings").with_memory_mb(1769);
                host.deploy(config, archive(&program, number).into()).await.expect("deployed");
            } else {
                let config = FunctionConfig::for_image(&name).expect("settings");
                let config = config.with_memory_mb(1769).with_image_config(ImageConfig::default());
                let uri = format!("bench/{kind}:v1");
                host.deploy_image(config, &uri).await.expect("deployed");
            }
            tokio::time::sleep(PAUSE).await;
            let start = Instant::now();
            let answer = host.invoke(name.as_str(), "{}").await.expect("an answer");
            let took = start.elapsed();
            assert!(answer.report.is_cold() && !answer.function_error, "{:?}", answer.payload);
            match times.get_mut(at) {
                Some((_, times)) => times.push(took),
                None => times.push((kind.to_owned(), vec![took])),
            }
            // One function of each image stays, as real images have several sandboxes.
            if number > 0 {
                host.remove(name.as_str()).await.expect("removed");
            }
        }
    }
    for (kind, mut times) in times {
        let first = times.remove(0);
        times.sort();
        let (median, high) = (times[times.len() / 2], times[times.len() * 9 / 10]);
        println!("| {kind} | {median:.2?} | {high:.2?} |");
        println!("| {kind}, the first | {first:.2?} | |");
    }
    host.shutdown().await;
}

/// Writes an image of so many layers as the only one of a layout.
fn write_image(folder: &Path, layers: usize, program: &[u8]) {
    std::fs::create_dir_all(folder.join("blobs/sha256")).expect("made");
    let blob = |kind: &str, content: &[u8]| {
        let digest = digest(content);
        std::fs::write(folder.join("blobs").join(digest.replace(':', "/")), content)
            .expect("written");
        json!({ "mediaType": kind, "digest": digest, "size": content.len() })
    };
    let mut tars: Vec<Vec<u8>> = (1..layers).map(filler).collect();
    tars.push(tar(&[("srv/bootstrap".to_owned(), program)]));
    let contents: Vec<String> = tars.iter().map(|it| digest(it)).collect();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<Value> = tars.iter().map(|it| blob(kind, it)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Entrypoint": ["/srv/bootstrap"] },
        "rootfs": { "type": "layers", "diff_ids": contents },
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = blob(kind, manifest.to_string().as_bytes());
    let mut index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    index["manifests"][0]["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    std::fs::write(folder.join("index.json"), index.to_string()).expect("written");
}

/// Packs 100 files that no other layer has.
fn filler(number: usize) -> Vec<u8> {
    let files = (0..100).map(|file| (format!("usr/share/{number}/{file}"), &b"text"[..]));
    tar(&files.collect::<Vec<_>>())
}

fn tar(files: &[(String, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).expect("added");
    }
    tar.into_inner().expect("finished")
}

fn digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Packs the program. Each archive has a file of its own, as functions differ by their code.
fn archive(program: &[u8], number: usize) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    for (name, content) in [("bootstrap", program), ("number", number.to_string().as_bytes())] {
        zip.start_file(name, options).expect("an entry");
        std::io::Write::write_all(&mut zip, content).expect("its content");
    }
    zip.finish().expect("an archive").into_inner()
}

const ROUNDS: usize = 41;
/// Pause before a cold start. Real ones have pauses, and an idle kernel is slower than a busy one.
const PAUSE: Duration = Duration::from_millis(30);
