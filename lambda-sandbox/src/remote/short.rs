//! Texts of errors that fit into a header.

use crate::Error;

/// Shortens the texts of an error, so that it fits into a header.
pub(super) fn short(mut error: Error) -> Error {
    match &mut error {
        Error::Invalid { value, reason, .. } => [value, reason].into_iter().for_each(cut),
        Error::Unavailable { why, .. } => cut(why),
        Error::Failed { path, source, .. } => {
            *path = path.take().filter(|path| path.as_os_str().len() <= TEXT_BYTES_MAX);
            if source.raw_os_error().is_none() {
                let mut text = source.to_string();
                cut(&mut text);
                *source = std::io::Error::new(source.kind(), text);
            }
        }
        Error::Exhausted { .. } | Error::Ended => {}
    }
    error
}

/// Shortens a text.
pub(super) fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

const TEXT_BYTES_MAX: usize = 8 * 1024;
