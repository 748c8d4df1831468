//! Functions that are container images: made, invoked and changed by the real AWS CLI.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::layout::{File, LINK, Layout, digest, layer, machine_layer};
use crate::support::{Output, Served, ready};

/// A runtime in the shell of busybox: answers with its arguments and what it sees.
const BOOTSTRAP: &[u8] = br#"#!/bin/sh
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
while true; do
    wget -S -O /tmp/event "$api/next" 2>/tmp/headers || exit 1
    id=$(sed -n 's/^ *[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: *//p' /tmp/headers | tr -d '\r')
    answer="{\"event\": $(cat /tmp/event), \"arguments\": \"$*\", \"folder\": \"$(pwd)\", \"image\": \"$IMAGE\","
    answer="$answer \"handler\": \"$_HANDLER\", \"version\": \"$(cat /version)\", \"user\": \"$(id -u)\","
    answer="$answer \"extension\": \"$(cat /tmp/extension 2>/dev/null)\"}"
    wget -q -O /dev/null --post-data "$answer" "$api/$id/response" || exit 1
done
"#;

/// An extension that leaves a file.
const EXTENSION: &[u8] = br#"#!/bin/sh
api=http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension
wget -S -O /dev/null --header "Lambda-Extension-Name: ext" --post-data '{"events": ["INVOKE"]}' "$api/register" 2>/tmp/registered
id=$(sed -n 's/^ *[Ll]ambda-[Ee]xtension-[Ii]dentifier: *//p' /tmp/registered | tr -d '\r')
cat /etc/hosts | tr '\n' ' ' >/tmp/extension
while wget -q -O /dev/null --header "Lambda-Extension-Identifier: $id" "$api/event/next"; do true; done
"#;

/// The programs that the bootstrap calls.
const APPLETS: [&str; 8] = ["sh", "wget", "sed", "tr", "cat", "id", "pwd", "sleep"];

/// Packs busybox, under the names of its programs, and the bootstrap.
pub(crate) fn base() -> Option<Vec<u8>> {
    let Ok(busybox) = std::fs::read("/bin/busybox") else {
        test_support::left_out("images", "needs /bin/busybox, statically linked");
        return None;
    };
    let names: Vec<String> = APPLETS.iter().map(|name| format!("bin/{name}")).collect();
    let mut files: Vec<File<'_>> =
        vec![("bin/busybox", 0o755, &busybox), ("srv/bootstrap", 0o755, BOOTSTRAP)];
    files.extend(names.iter().map(|it| (it.as_str(), LINK, &b"busybox"[..])));
    Some(layer(&files))
}

pub(crate) fn config() -> Value {
    json!({ "Entrypoint": ["/srv/bootstrap"], "Cmd": ["app.handler", "more"], "WorkingDir": "/srv",
            "Env": ["PATH=/bin", "IMAGE=its own"] })
}

fn create(served: &Served, name: &str, uri: &str, more: &[&str]) -> Output {
    let code = format!("ImageUri={uri}");
    let arguments = [
        "create-function",
        "--function-name",
        name,
        "--package-type",
        "Image",
        "--role",
        "arn:aws:iam::123456789012:role/test",
        "--code",
        &code,
    ];
    served.aws(&[&arguments[..], more].concat())
}

fn get(served: &Served, name: &str) -> Value {
    served.aws(&["get-function", "--function-name", name]).json()
}

/// Starts a host whose registry `local` is a folder; returns the folder of a repository in it.
fn serve(more: &[&str]) -> (Served, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let registry = format!("local={}", folder.path().join("registry").display());
    let repository = folder.path().join("registry/team/app");
    let arguments = [&["--image-registry", &registry, "--change-time", "0"], more].concat();
    (Served::start_in(folder, &arguments), repository)
}

#[test]
fn a_function_of_an_image_is_made_invoked_changed_and_deleted() {
    let Some(base) = ready("images").then(base).flatten() else { return };
    let (served, repository) = serve(&[]);
    let mut layout = Layout::new(&repository);
    let first = layout.image("v1", &[base.clone(), layer(&[("version", 0o644, b"1")])], &config());
    let second = layout.image("v2", &[base, layer(&[("version", 0o644, b"2")])], &config());

    let made = create(&served, "f", "local/team/app:v1", &[]);
    assert!(made.success, "{made:?}");
    let made = made.json();
    assert_eq!((&made["PackageType"], &made["State"]), (&json!("Image"), &json!("Pending")));
    for absent in ["Runtime", "Handler", "ImageConfigResponse", "RuntimeVersionConfig"] {
        assert_eq!(made.get(absent), None, "{absent}");
    }
    assert_eq!(made["CodeSha256"], first.trim_start_matches("sha256:"));
    let expected = json!({
        "RepositoryType": "ECR", "ImageUri": "local/team/app:v1",
        "ResolvedImageUri": format!("local/team/app@{first}"),
    });
    assert_eq!(get(&served, "f")["Code"], expected);

    let expected = json!({
        "event": { "a": 1 }, "arguments": "app.handler more", "folder": "/srv", "image": "its own",
        "handler": "app.handler", "version": "1", "extension": "",
    });
    let seen = |name: &str| {
        let (_, mut answer) = served.invoke(name, r#"{"a":1}"#, &[]);
        let user: u64 = answer["user"].as_str().unwrap_or_default().parse().unwrap_or(0);
        assert!(user > 0, "a function is not root: {answer}");
        answer.as_object_mut().unwrap().remove("user");
        answer
    };
    assert_eq!(seen("f"), expected);
    assert_eq!(seen("f"), expected, "warm");

    let change = ["update-function-code", "--function-name", "f", "--publish", "--image-uri"];
    let output = served.aws(&[&change[..], &[&format!("local/team/app@{second}")]].concat());
    assert_eq!(output.json()["Version"], "1", "{output:?}");
    assert_eq!(seen("f")["version"], "2");
    let overrides = r#"{"Command":["b.handler"],"WorkingDirectory":"/bin"}"#;
    let change = ["update-function-configuration", "--function-name", "f", "--image-config"];
    let output = served.aws(&[&change[..], &[overrides]].concat()).json();
    let expected: Value = serde_json::from_str(overrides).unwrap();
    assert_eq!(output["ImageConfigResponse"]["ImageConfig"], expected);
    let overridden = seen("f");
    assert_eq!(
        (&overridden["arguments"], &overridden["folder"], &overridden["handler"]),
        (&json!("b.handler"), &json!("/bin"), &json!("b.handler"))
    );
    let output = served.aws(&[&change[..], &["{}"]].concat());
    assert!(output.success && output.json().get("ImageConfigResponse").is_none(), "{output:?}");
    assert_eq!(seen("f")["arguments"], "app.handler more");

    // A host that starts again has it still, and its registry need not be there.
    let folder = served.stop();
    std::fs::remove_dir_all(folder.path().join("registry")).unwrap();
    let served = Served::start_in(folder, &[]);
    assert_eq!(served.invoke("f", "1", &[]).1["version"], "2");
    assert!(served.aws(&["delete-function", "--function-name", "f"]).success);
    until(|| stored(&served) == 1, "the layers are gone, but for the host's own");
}

/// Returns how many folders of code and layers a host has.
fn stored(served: &Served) -> usize {
    let folder = served.folder.path().join("data/code");
    std::fs::read_dir(folder).unwrap().filter(|it| it.as_ref().unwrap().path().is_dir()).count()
}

fn until(mut done: impl FnMut() -> bool, what: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn layers_of_images_are_stored_once() {
    let Some(base) = ready("layers of images").then(base).flatten() else { return };
    let (served, repository) = serve(&[]);
    let mut layout = Layout::new(&repository);
    for version in ["1", "2", "3"] {
        let own = layer(&[("version", 0o644, version.as_bytes())]);
        layout.image(version, &[base.clone(), own], &config());
        let output =
            create(&served, &format!("f{version}"), &format!("local/team/app:{version}"), &[]);
        assert!(output.success, "{output:?}");
    }
    assert_eq!(stored(&served), 4);
    assert!(served.aws(&["delete-function", "--function-name", "f1"]).success);
    until(|| stored(&served) == 3, "a layer that nobody has is gone");
    assert_eq!(served.invoke("f2", "1", &[]).1["version"], "2");

    // The most layers that a sandbox can have, the most that an image can, and one more.
    let many = |count: u8| -> Vec<Vec<u8>> {
        let own = (1..count).map(|it| layer(&[("version", 0o644, &it.to_string().into_bytes())]));
        [base.clone()].into_iter().chain(own).collect()
    };
    for count in [31, 32, 127] {
        layout.image(&count.to_string(), &many(count), &config());
        let (name, uri) = (format!("f{count}"), format!("local/team/app:{count}"));
        assert!(create(&served, &name, &uri, &[]).success);
        assert_eq!(served.invoke(&name, "1", &[]).1["version"], (count - 1).to_string());
    }
    layout.image("128", &many(128), &config());
    let refused = create(&served, "f128", "local/team/app:128", &[]);
    assert!(refused.stderr.contains("local/team/app:128 is not supported."), "{refused:?}");
}

#[test]
fn what_cannot_be_taken_is_refused_in_lambdas_words() {
    let Some(base) = ready("images that are refused").then(base).flatten() else { return };
    let (served, repository) = serve(&[]);
    let mut layout = Layout::new(&repository);
    layout.image("good", std::slice::from_ref(&base), &config());
    let manifest = layout.image("no-manifest", std::slice::from_ref(&base), &json!({}));
    std::fs::remove_file(layout.path(&manifest)).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.as_old_mut().name[..9].copy_from_slice(b"../escape");
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
    layout.image("hostile", &[base.clone(), tar.into_inner().unwrap()], &config());
    let before = stored(&served);
    let missing =
        |uri: &str| format!("Source image {uri} does not exist. Provide a valid source image.");
    for (uri, message) in [
        ("local/team/app:none", missing("local/team/app:none")),
        ("local/team/none:good", missing("local/team/none:good")),
        ("elsewhere/team/app:good", missing("elsewhere/team/app:good")),
        ("oci:/etc:good", missing("oci:/etc:good")),
        ("local/team/app:no-manifest", missing("local/team/app:no-manifest")),
        (
            "local/../app:good",
            "Source image local/../app:good is not valid. Provide a valid source image.".to_owned(),
        ),
        (
            "local/team/app:hostile",
            "The image manifest, config or layer media type for the source image local/team/app:hostile is \
             not supported."
                .to_owned(),
        ),
    ] {
        let refused = create(&served, "f", uri, &[]);
        let expected = format!("(InvalidParameterValueException) when calling the CreateFunction operation: {message}");
        assert!(refused.stderr.contains(&expected), "{uri}: {refused:?}");
    }
    until(|| stored(&served) == before, "nothing of a refused image stays");
    assert!(!served.folder.path().join("data/code/escape").exists());

    let both = create(&served, "f", "local/team/app:good", &["--handler", "a.b"]);
    let expected = "Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image.";
    assert!(both.stderr.contains(expected), "{both:?}");
    assert!(create(&served, "f", "local/team/app:good", &[]).success);
    std::fs::write(served.folder.path().join("f.zip"), crate::support::archive(&[])).unwrap();
    let change = ["update-function-code", "--function-name", "f", "--zip-file", "fileb://f.zip"];
    let expected = "Please provide ImageUri when updating a function with packageType Image.";
    assert!(served.aws(&change).stderr.contains(expected));
    served.create("zip", "provided.al2023", "a.b", &[("bootstrap", b"")], &[]);
    let change =
        ["update-function-code", "--function-name", "zip", "--image-uri", "local/team/app:good"];
    let expected = "Please don't provide ImageUri when updating a function with packageType Zip.";
    assert!(served.aws(&change).stderr.contains(expected));
}

#[test]
fn an_image_whose_program_does_not_start_is_the_functions_fault() {
    let Some(base) = ready("images that do not start").then(base).flatten() else { return };
    let (served, repository) = serve(&[]);
    let mut layout = Layout::new(&repository);
    // An executable for other processors: the machine is at byte 18 of its header.
    let mut foreign = std::fs::read("/bin/busybox").unwrap();
    foreign[18] = 0xb7;
    let files = layer(&[("foreign", 0o755, &foreign), ("text", 0o644, b"no program")]);
    layout.image_for("arm64", "v1", &[base, files], &config());
    for (name, overrides, kind, message) in [
        (
            "a",
            r#"{"EntryPoint":["/none"]}"#,
            "Entrypoint",
            "fork/exec /none: no such file or directory",
        ),
        (
            "b",
            r#"{"EntryPoint":["none"]}"#,
            "Entrypoint",
            r#"exec: "none": executable file not found in $PATH"#,
        ),
        (
            "c",
            r#"{"EntryPoint":["/foreign"]}"#,
            "Entrypoint",
            "fork/exec /foreign: exec format error",
        ),
        ("d", r#"{"EntryPoint":["/text"]}"#, "Entrypoint", "fork/exec /text: permission denied"),
        (
            "e",
            r#"{"WorkingDirectory":"/none"}"#,
            "WorkingDir",
            "chdir /none: no such file or directory",
        ),
    ] {
        assert!(create(&served, name, "local/team/app:v1", &["--image-config", overrides]).success);
        let (told, answer) = served.invoke(name, "{}", &[]);
        assert_eq!(told["FunctionError"], "Unhandled", "{answer}");
        assert_eq!(answer["errorType"], format!("Runtime.Invalid{kind}"), "{answer}");
        let text = answer["errorMessage"].as_str().unwrap();
        assert!(text.ends_with(&format!("Error: {message}")), "{text}");
    }
    // A program that PATH finds.
    let overrides = r#"{"EntryPoint":["sh","/srv/bootstrap"]}"#;
    assert!(create(&served, "f", "local/team/app:v1", &["--image-config", overrides]).success);
    assert_eq!(served.invoke("f", "7", &[]).1["event"], 7);
}

#[test]
fn extensions_of_an_image_are_started_and_have_the_names_of_the_sandbox() {
    let Some(base) = ready("extensions of images").then(base).flatten() else { return };
    let (served, repository) = serve(&[]);
    let extension = layer(&[("opt/extensions/ext", 0o755, EXTENSION)]);
    Layout::new(&repository).image("latest", &[base, extension], &config());
    assert!(create(&served, "f", "local/team/app", &["--timeout", "20"]).success);
    let hosts = served.invoke("f", "1", &[]).1["extension"].clone();
    assert_eq!(hosts, "127.0.0.1 localhost sandbox sandbox.localdomain ");
}

/// AWS's runtime interface client for Python as the entry point, as AWS's documentation builds
/// images, and an extension in the image.
#[test]
fn awslambdaric_is_the_entry_point_of_an_image() {
    if !ready("awslambdaric in an image") {
        return;
    }
    let packages = test_support::workspace().join("target/venv/lib");
    let packages = std::fs::read_dir(packages).unwrap().next().unwrap().unwrap().path();
    let packages = packages.join("site-packages");
    let interpreter = std::process::Command::new("python3")
        .args(["-c", "import os,sys; print(os.path.realpath(sys.executable)); print(os.__file__)"])
        .output()
        .unwrap();
    let interpreter = String::from_utf8(interpreter.stdout).unwrap();
    let mut lines = interpreter.lines();
    let (program, library) = (lines.next().unwrap(), Path::new(lines.next().unwrap()));
    let library = library.parent().unwrap();
    if !packages.join("awslambdaric").is_dir() {
        test_support::left_out("awslambdaric in an image", "not in target/venv");
        return;
    }
    let skip = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap_or_default();
        ["site-packages", "test", "__pycache__", "idlelib", "ensurepip", "lib2to3", "tkinter"]
            .contains(&name)
            || name.starts_with("config-")
    };
    // The client's own library needs others too.
    let entries = std::fs::read_dir(&packages).unwrap().map(|it| it.unwrap().path());
    let native = entries.filter(|it| it.to_string_lossy().contains("/runtime_client."));
    let native: Vec<_> = native.map(|it| (it.clone(), it.to_str().unwrap().to_owned())).collect();
    let programs = native.iter().map(|(path, inside)| (path.as_path(), inside.as_str()));
    let programs: Vec<_> = programs.chain([(Path::new(program), program)]).collect();
    let machine = machine_layer(&programs, &[library], skip);
    let mut client = tar::Builder::new(Vec::new());
    for entry in std::fs::read_dir(&packages).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let own = ["awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py"];
        if !own.iter().any(|it| name.starts_with(it)) {
            continue;
        }
        let (path, inside) = (entry.path(), format!("client/{name}"));
        match path.is_dir() {
            true => client.append_dir_all(inside, path).unwrap(),
            false => client.append_path_with_name(path, inside).unwrap(),
        }
    }
    let app = layer(&[("var/task/app.py", 0o644, PYTHON)]);
    let (served, repository) = serve(&[]);
    let config = json!({
        "Entrypoint": [program, "-m", "awslambdaric"], "Cmd": ["app.handler"],
        "WorkingDir": "/var/task", "Env": ["PYTHONPATH=/client"],
    });
    let layers = [machine, client.into_inner().unwrap(), app];
    Layout::new(&repository).image("latest", &layers, &config);
    let more = ["--memory-size", "512", "--timeout", "20"];
    let made = create(&served, "f", "local/team/app", &more);
    assert!(made.success, "{made:?}");
    for number in 1..4 {
        let (told, answer) = served.invoke("f", r#"{"text":"é"}"#, &["--log-type", "Tail"]);
        let log =
            base64::engine::general_purpose::STANDARD.decode(told["LogResult"].as_str().unwrap());
        let log = String::from_utf8_lossy(&log.unwrap()).into_owned();
        assert_eq!(answer, json!({ "text": "é", "count": number, "name": "f" }), "{log}");
    }
    let (told, error) = served.invoke("f", r#"{"fail":1}"#, &[]);
    assert_eq!(
        (&told["FunctionError"], &error["errorType"]),
        (&json!("Unhandled"), &json!("KeyError"))
    );
}

const PYTHON: &[u8] = b"count = 0\n\
    def handler(event, context):\n\
    \x20   global count\n\
    \x20   count += 1\n\
    \x20   return {'text': event['text'], 'count': count, 'name': context.function_name}\n";

/// A registry on loopback that serves a layout as the distribution specification says.
fn registry(folder: PathBuf) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            lines.take_while(|it| !it.is_empty()).for_each(drop);
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let (mut kind, mut content) = ("application/octet-stream".to_owned(), None);
            if let Some((repository, rest)) =
                path.strip_prefix("/v2/").and_then(|it| it.rsplit_once("/manifests/"))
            {
                let index = std::fs::read(folder.join(repository).join("index.json"));
                let index: Value =
                    serde_json::from_slice(&index.unwrap_or_default()).unwrap_or_default();
                let manifests = index["manifests"].as_array().cloned().unwrap_or_default();
                let found = manifests.iter().find(|it| {
                    it["digest"] == rest
                        || it["annotations"]["org.opencontainers.image.ref.name"] == rest
                });
                if let Some(found) = found {
                    kind = found["mediaType"].as_str().unwrap().to_owned();
                    let digest = found["digest"].as_str().unwrap().replace(':', "/");
                    content =
                        std::fs::read(folder.join(repository).join("blobs").join(digest)).ok();
                }
            } else if let Some((repository, digest)) =
                path.strip_prefix("/v2/").and_then(|it| it.rsplit_once("/blobs/"))
            {
                let blob = folder.join(repository).join("blobs").join(digest.replace(':', "/"));
                content = std::fs::read(blob).ok();
            }
            let status = if content.is_some() { "200 OK" } else { "404 Not Found" };
            let content = content.unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                content.len()
            );
            drop((&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&content)));
        }
    }));
    address
}

#[test]
fn images_come_from_a_registry_on_loopback() {
    let Some(base) = ready("images of a registry").then(base).flatten() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut layout = Layout::new(folder.path().join("team/app"));
    let first = layout.image("v1", &[base.clone(), layer(&[("version", 0o644, b"1")])], &config());
    let latest =
        layout.image("latest", &[base.clone(), layer(&[("version", 0o644, b"2")])], &config());
    let own = layer(&[("version", 0o644, b"3")]);
    layout.image("broken", &[base, own.clone()], &config());
    std::fs::write(layout.path(&digest(&own)), layer(&[("version", 0o644, b"4")])).unwrap();
    let address = registry(folder.path().to_owned());
    let registry = format!("{address}={address}");
    let served = Served::start(&["--image-registry", &registry, "--change-time", "0"]);
    for (name, reference, version) in
        [("a", ":v1".to_owned(), "1"), ("b", String::new(), "2"), ("c", format!("@{first}"), "1")]
    {
        let made = create(&served, name, &format!("{address}/team/app{reference}"), &[]);
        assert!(made.success, "{made:?}");
        assert_eq!(served.invoke(name, "{}", &[]).1["version"], version);
    }
    let resolved = get(&served, "b")["Code"]["ResolvedImageUri"].clone();
    assert_eq!(resolved, format!("{address}/team/app@{latest}"));
    let refused = create(&served, "d", &format!("{address}/team/app:none"), &[]);
    assert!(
        refused.stderr.contains("does not exist. Provide a valid source image."),
        "{refused:?}"
    );
    let refused = create(&served, "d", &format!("{address}/team/app:broken"), &[]);
    assert!(refused.stderr.contains("is not supported."), "{refused:?}");
}

#[test]
fn images_on_disk_are_taken_by_path_where_the_host_allows_it() {
    let Some(base) = ready("images by path").then(base).flatten() else { return };
    let served = Served::start(&["--image-paths", "--change-time", "0"]);
    let path = served.folder.path().join("image");
    // The only image of a layout need not be called `latest`.
    Layout::new(&path).image("v1", &[base, layer(&[("version", 0o644, b"1")])], &config());
    let uri = format!("oci:{}", path.display());
    assert!(create(&served, "f", &uri, &[]).success);
    assert_eq!(served.invoke("f", "{}", &[]).1["version"], "1");
}
