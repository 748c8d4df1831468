//! The container image of a function, and the settings that override the image's own.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::limits::Constraint;
use crate::error::Error;

/// The container image that is a function's code.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Image {
    /// The URI as the caller gave it, with a tag or a digest.
    pub uri: String,
    /// The URI with the digest of the image's manifest, which names this image for ever.
    pub resolved_uri: String,
    /// The names of the folders of its layers, the lowest first: the SHA-256 of a layer's
    /// uncompressed tar stream in hexadecimal, or of the digests of layers that are merged, because
    /// a sandbox cannot have so many.
    pub layers: Vec<String>,
    /// The image's entry point.
    pub entry_point: Vec<String>,
    /// The image's command: the arguments of its entry point.
    pub command: Vec<String>,
    /// The image's environment, as names and values. `Debug` hides it.
    pub environment: Vec<(String, String)>,
    /// The image's working directory; absolute.
    pub working_directory: String,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("resolved_uri", &self.resolved_uri).finish_non_exhaustive()
    }
}

/// Settings of a function that override its image's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImageConfig {
    /// The program and its first arguments; empty for the image's.
    pub entry_point: Vec<String>,
    /// The arguments after the entry point; empty for the image's.
    pub command: Vec<String>,
    /// The working directory; empty for the image's.
    pub working_directory: String,
}

impl ImageConfig {
    /// Sets the program and its first arguments.
    #[must_use]
    pub fn with_entry_point<T: Into<String>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.entry_point = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the arguments after the entry point.
    #[must_use]
    pub fn with_command<T: Into<String>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn with_working_directory(mut self, folder: &str) -> Self {
        folder.clone_into(&mut self.working_directory);
        self
    }

    /// Returns whether nothing is overridden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the arguments after the entry point, of an image that has these settings.
    pub(crate) fn arguments<'a>(&'a self, image: &'a Image) -> &'a [String] {
        if self.command.is_empty() { &image.command } else { &self.command }
    }

    /// Returns the program with its arguments, of an image that has these settings. A program with
    /// a slash is an absolute path.
    pub(crate) fn words(&self, image: &Image) -> Vec<String> {
        let entry_point =
            if self.entry_point.is_empty() { &image.entry_point } else { &self.entry_point };
        let mut words: Vec<String> =
            entry_point.iter().chain(self.arguments(image)).cloned().collect();
        if let Some(program) = words.first_mut().filter(|it| it.contains('/')) {
            *program = self.folder(image).join(&*program).to_string_lossy().into_owned();
        }
        words
    }

    /// Returns the working directory, of an image that has these settings.
    pub(crate) fn folder(&self, image: &Image) -> PathBuf {
        Path::new(&image.working_directory).join(&self.working_directory)
    }

    /// Checks the settings against Lambda's limits.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let lists =
            [("imageConfig.entryPoint", &self.entry_point), ("imageConfig.command", &self.command)];
        for (field, words) in lists {
            if words.len() > WORDS_MAX {
                let constraint = Constraint::LengthAtMost(WORDS_MAX);
                return Err(Error::invalid(field, &format!("{} words", words.len()), constraint));
            }
        }
        let folder = &self.working_directory;
        if folder.len() > FOLDER_LENGTH_MAX {
            let constraint = Constraint::LengthAtMost(FOLDER_LENGTH_MAX);
            return Err(Error::invalid("imageConfig.workingDirectory", folder, constraint));
        }
        let texts = self.entry_point.iter().chain(&self.command).chain([folder]);
        if texts.into_iter().any(|text| text.contains('\0')) {
            return Err(Error::parameter("ImageConfig has a text with the character NUL"));
        }
        let bytes: usize = self.entry_point.iter().chain(&self.command).map(String::len).sum();
        if bytes > BYTES_MAX {
            return Err(Error::parameter(format!(
                "ImageConfig has {bytes} bytes of EntryPoint and Command, at the most {BYTES_MAX}"
            )));
        }
        Ok(())
    }
}

/// AWS's limits (the model's `StringList` and `WorkingDirectory`).
const WORDS_MAX: usize = 1500;
const FOLDER_LENGTH_MAX: usize = 1000;
/// Lambda has no limit of their bytes. The kernel takes 128 KiB a word.
const BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image {
            uri: "r/a:1".to_owned(),
            resolved_uri: "r/a@sha256:0".to_owned(),
            layers: Vec::new(),
            entry_point: vec!["python3".to_owned(), "-m".to_owned(), "client".to_owned()],
            command: vec!["app.handler".to_owned()],
            environment: Vec::new(),
            working_directory: "/var/task".to_owned(),
        }
    }

    #[test]
    fn each_setting_overrides_its_own_part_of_the_image() {
        let words = |config: ImageConfig| config.words(&image());
        assert_eq!(words(ImageConfig::default()), ["python3", "-m", "client", "app.handler"]);
        let config = ImageConfig::default().with_command(["b.handler"]);
        assert_eq!(words(config), ["python3", "-m", "client", "b.handler"]);
        let config = ImageConfig::default().with_entry_point(["/main"]);
        assert_eq!(words(config), ["/main", "app.handler"]);
        let config =
            ImageConfig::default().with_entry_point(["./main"]).with_working_directory("a");
        assert_eq!(config.folder(&image()), Path::new("/var/task/a"));
        assert_eq!(words(config), ["/var/task/a/./main", "app.handler"]);
        let config = ImageConfig::default().with_working_directory("/srv");
        assert_eq!(config.folder(&image()), Path::new("/srv"));
    }

    #[test]
    fn settings_have_lambdas_limits() {
        assert!(ImageConfig::default().with_command(vec!["a"; 1500]).check().is_ok());
        for config in [
            ImageConfig::default().with_command(vec!["a"; 1501]),
            ImageConfig::default().with_entry_point(["a\0b"]),
            ImageConfig::default().with_entry_point(["a".repeat(64 * 1024 + 1)]),
            ImageConfig::default().with_working_directory(&"a".repeat(1001)),
        ] {
            assert!(config.check().is_err());
        }
    }

    #[test]
    fn debug_hides_the_environment_of_an_image() {
        let mut image = image();
        image.environment.push(("TOKEN".to_owned(), "s3cret".to_owned()));
        assert!(!format!("{image:?}").contains("s3cret"));
    }
}
