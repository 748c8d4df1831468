//! Queries of the page's requests.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

/// The values of a query; of a name that comes twice, the last one.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|it| !it.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    /// Returns a value that is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|it| !it.is_empty())
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Returns the number of items of a page: the parameter `count`, limited to 1 to `max`.
    pub(super) fn count(&self, default: usize, max: usize) -> usize {
        let asked = self.number("count").and_then(|it| usize::try_from(it).ok());
        asked.unwrap_or(default).clamp(1, max)
    }
}

/// Decodes percent encoding. Replaces bytes that are not UTF-8 by U+FFFD.
pub(super) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_counts_bounded() {
        let query = Query::parse("a=1&q=x%20y+z&&none=&count=5000&bad=%ff%");
        assert_eq!((query.number("a"), query.text("q")), (Some(1), Some("x y z")));
        assert_eq!((query.text("none"), query.text("gone"), query.number("q")), (None, None, None));
        assert_eq!(query.count(50, 100), 100);
        assert_eq!(Query::parse("count=0").count(50, 100), 1);
        assert_eq!(Query::parse("count=-1").count(50, 100), 50);
        assert_eq!(query.text("bad"), Some("\u{fffd}%"));
    }
}
