//! The specification of the sandbox of a function that is a container image.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use lambda_sandbox::{Root, SandboxSpec, SmallFile};
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use super::protocol::Deployment;
use super::specification::{limits, platform_variables};
use crate::error::Error;
use crate::function::config::is_reserved;
use crate::function::image::Image;

/// Describes a sandbox for `deployment`, whose image has its layers in these folders. The root's
/// files ask for a layer of their own ([`write_own_layer`]).
pub(super) fn specify(
    deployment: &Deployment,
    image: &Image,
    log_stream: &str,
    layers: Vec<PathBuf>,
) -> Result<SandboxSpec, Failure> {
    let config = &deployment.config;
    let words = config.image_config.words(image);
    if words.first().is_none_or(String::is_empty) {
        return Err(Failure::no_command());
    }
    let mut root = Root::of_layers(layers);
    root.files.push(SmallFile::new("/etc/hosts", HOSTS));
    let mut spec = SandboxSpec::new(root, words).named(config.name.as_str());
    spec.working_directory = config.image_config.folder(image);
    spec.limits = limits(config);
    let environment = environment(deployment, image, log_stream).into_iter();
    spec.environment = environment.map(|(name, value)| (name.into(), value.into())).collect();
    Ok(spec)
}

/// The whole environment, each variable once: what Lambda defines, over that the image's, over that
/// the function's settings'. Settings cannot name a reserved variable, and an image's are left out.
///
/// Source: AWS, "Defined runtime environment variables". What Lambda's base images define
/// themselves (`LD_LIBRARY_PATH`) is left to the image. `_HANDLER` is the command's first word, as
/// the Runtime Interface Emulator has it.
fn environment(
    deployment: &Deployment,
    image: &Image,
    log_stream: &str,
) -> BTreeMap<String, String> {
    let config = &deployment.config;
    let mut environment: BTreeMap<String, String> = DEFAULTS
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(image.environment.iter().filter(|(name, _)| !is_reserved(name)).cloned())
        .collect();
    if let Some(handler) = config.image_config.arguments(image).first() {
        environment.insert("_HANDLER".to_owned(), handler.clone());
    }
    environment.extend(platform_variables(deployment, log_stream));
    let own = config.environment.iter();
    environment.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    environment
}

/// Returns the name of a layer with these files, as a SHA-256 in hexadecimal.
pub(super) fn own_layer(files: &[SmallFile]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        let path = file.path.as_os_str().as_encoded_bytes();
        for part in [path, &file.content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update([u8::from(file.executable)]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the files of a sandbox into a folder that becomes the top layer of its root. Blocks.
pub(super) fn write_own_layer(folder: &Path, files: &[SmallFile]) -> Result<(), Error> {
    for file in files {
        let path = folder.join(file.path.strip_prefix("/").unwrap_or(&file.path));
        let write = || -> io::Result<()> {
            let mut above = fs::DirBuilder::new();
            above.recursive(true).mode(0o755);
            path.parent().map_or(Ok(()), |parent| above.create(parent))?;
            fs::write(&path, &file.content)?;
            let mode = if file.executable { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        write().map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// Variables that an image may define otherwise.
const DEFAULTS: [(&str, &str); 3] =
    [("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin"), ("LANG", "en_US.UTF-8"), ("TZ", ":UTC")];
/// The names that extensions have their subscriptions at.
const HOSTS: &str = "127.0.0.1 localhost sandbox sandbox.localdomain\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(image: Image) -> Deployment {
        let config = crate::FunctionConfig::new("f", "", "").unwrap();
        let mut config = config.with_environment([("OWN", "function's"), ("BOTH", "function's")]);
        config.image = Some(image.into());
        Deployment {
            number: 1,
            arn: "arn:aws:lambda:eu-west-1:123456789012:function:f".to_owned(),
            region: "eu-west-1".to_owned(),
            version: crate::Version::Latest,
            config: config.into(),
            code: crate::code::CodeDigest::of(b""),
            provisioned: false,
            account: crate::function::account::AccountIndex::default(),
        }
    }

    fn image(command: &[&str], variables: &[(&str, &str)]) -> Image {
        let variables = variables.iter();
        Image {
            uri: "r/a:1".to_owned(),
            resolved_uri: "r/a@sha256:0".to_owned(),
            layers: Vec::new(),
            entry_point: Vec::new(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            environment: variables.map(|&(a, b)| (a.to_owned(), b.to_owned())).collect(),
            working_directory: "/srv".to_owned(),
        }
    }

    #[test]
    fn a_variable_is_the_functions_before_the_images_before_a_default() {
        let image = image(
            &["main", "x"],
            &[
                ("PATH", "/image"),
                ("BOTH", "image's"),
                ("AWS_SECRET_ACCESS_KEY", "image's"),
                ("AWS_LAMBDA_RUNTIME_API", "image's"),
                ("AWS_REGION", "image's"),
            ],
        );
        let found = environment(&deployment(image.clone()), &image, "stream");
        for (name, expected) in [
            ("PATH", Some("/image")),
            ("TZ", Some(":UTC")),
            ("BOTH", Some("function's")),
            ("OWN", Some("function's")),
            ("AWS_REGION", Some("eu-west-1")),
            ("AWS_LAMBDA_FUNCTION_NAME", Some("f")),
            ("LAMBDA_TASK_ROOT", Some("/var/task")),
            ("_HANDLER", Some("main")),
            ("AWS_SECRET_ACCESS_KEY", None),
            ("AWS_LAMBDA_RUNTIME_API", None),
            ("AWS_EXECUTION_ENV", None),
            ("LD_LIBRARY_PATH", None),
        ] {
            assert_eq!(found.get(name).map(String::as_str), expected, "{name}");
        }
    }

    #[test]
    fn an_image_that_names_no_program_is_the_functions_fault() {
        let none = image(&[], &[]);
        let spec = specify(&deployment(none.clone()), &none, "stream", vec!["/layer".into()]);
        assert_eq!(spec.unwrap_err().kind, "Runtime.InvalidEntrypoint");
        let some = image(&["main"], &[]);
        let spec = specify(&deployment(some.clone()), &some, "stream", vec!["/layer".into()]);
        assert_eq!(spec.unwrap().command, ["main"]);
    }

    #[test]
    fn files_have_a_layer_of_their_own_by_their_contents() {
        let file = |path: &str, content: &str| SmallFile::new(path, content);
        let names = [
            own_layer(&[file("/a", "bc")]),
            own_layer(&[file("/ab", "c")]),
            own_layer(&[file("/a", "bc"), file("/d", "")]),
        ];
        assert!(names.iter().all(|it| it.len() == 64));
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2]);
        let folder = tempfile::tempdir().unwrap();
        write_own_layer(folder.path(), &[file("/etc/hosts", HOSTS)]).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("etc/hosts")).unwrap(), HOSTS);
    }
}
