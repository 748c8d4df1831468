//! Filter patterns of log lines: terms that a line has, or has not.
//!
//! Source: AWS, "Filter pattern syntax for metric filters, subscription filters, filter log events,
//! and Live Tail", on unstructured log events. Patterns of fields (`{ $.a = 1 }`, `[a, b]`) and
//! regular expressions (`%a%`) are refused.

use super::error::LogsError;

/// A filter pattern.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pattern {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, LogsError> {
        let mut pattern = Self::default();
        let mut rest = text.trim_start();
        if rest.starts_with(['{', '[', '%']) {
            let message = "filterPattern: this host has patterns of terms alone";
            return Err(LogsError::parameter(message));
        }
        while !rest.is_empty() {
            let terms = match rest.as_bytes()[0] {
                b'?' => &mut pattern.any,
                b'-' => &mut pattern.none,
                _ => &mut pattern.all,
            };
            rest = rest.strip_prefix(['?', '-']).unwrap_or(rest);
            let (term, after) = match rest.strip_prefix('"') {
                Some(quoted) => {
                    let unclosed = || LogsError::parameter("filterPattern: a quote is not closed");
                    quoted.split_once('"').ok_or_else(unclosed)?
                }
                None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
            };
            if !term.is_empty() {
                terms.push(term.to_owned());
            }
            rest = after.trim_start();
        }
        Ok(pattern)
    }

    /// Returns whether a line fits. Letters' case counts.
    pub(super) fn fits(&self, line: &str) -> bool {
        let has = |term: &String| line.contains(term.as_str());
        self.all.iter().all(has)
            && (self.any.is_empty() || self.any.iter().any(has))
            && !self.none.iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_by_the_terms_of_a_pattern() {
        let line = "2024 ERROR [one two] Failed: 7%";
        for (pattern, fits) in [
            ("", true),
            ("  ", true),
            ("ERROR", true),
            ("error", false),
            ("ERROR Failed", true),
            ("ERROR missing", false),
            ("\"one two\"", true),
            ("\"two one\"", false),
            ("?missing ?Failed", true),
            ("?missing ?gone", false),
            ("ERROR -Failed", false),
            ("ERROR -missing", true),
            ("ERROR -\"one two\"", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(line), fits, "{pattern}");
        }
        for refused in ["{ $.a = 1 }", "[a, b]", "%ERR.R%", "\"open"] {
            assert!(Pattern::parse(refused).is_err(), "{refused}");
        }
    }
}
