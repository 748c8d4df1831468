//! Paths of routes.

use std::fmt;

use crate::encoding::decode;
use crate::error::Error;

/// The path of a route: literals, `{parameter}` for one segment, and `{parameter+}` for all that
/// remain.
///
/// Patterns are ordered by specificity: at the first segment in which two differ, a literal comes
/// before a parameter, which comes before `{parameter+}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    segments: Vec<Segment>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Parameter(String),
    Rest(String),
}

impl Pattern {
    /// Parses a path such as `/pets/{id}` or `/{proxy+}`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it does not begin with `/`, if a parameter has no name or one that was
    /// used, or if something follows `{parameter+}`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::invalid(text, reason);
        let rest = text.strip_prefix('/').ok_or_else(|| invalid("does not begin with `/`"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut segments: Vec<Segment> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for part in rest.split('/').filter(|it| !it.is_empty()) {
            if matches!(segments.last(), Some(Segment::Rest(_))) {
                return Err(invalid("nothing can follow `{parameter+}`"));
            }
            let Some(name) = part.strip_prefix('{').and_then(|it| it.strip_suffix('}')) else {
                if part.contains(['{', '}']) {
                    return Err(invalid("a parameter takes a whole segment"));
                }
                segments.push(Segment::Literal(part.to_owned()));
                continue;
            };
            let (name, greedy) = name.strip_suffix('+').map_or((name, false), |it| (it, true));
            if name.is_empty() || name.contains(['{', '}', '+']) || names.contains(&name) {
                return Err(invalid("a parameter has no name, or one that another has"));
            }
            names.push(name);
            let name = name.to_owned();
            segments.push(if greedy { Segment::Rest(name) } else { Segment::Parameter(name) });
        }
        Ok(Self { segments, text: text.to_owned() })
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the values of the parameters, still percent-encoded, if the pattern covers a path.
    ///
    /// A slash at the end of the path makes no difference, and is no part of a parameter.
    #[must_use]
    pub fn matches(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let path = path.trim_start_matches('/');
        let mut rest = Some(path.strip_suffix('/').unwrap_or(path)).filter(|it| !it.is_empty());
        let mut parameters = Vec::new();
        for segment in &self.segments {
            let whole = rest?;
            let (first, following) = match whole.split_once('/') {
                Some((first, following)) => (first, Some(following)),
                None => (whole, None),
            };
            match segment {
                Segment::Literal(text)
                    if text == first || first.contains('%') && *text == decode(first) => {}
                Segment::Literal(_) => return None,
                Segment::Parameter(_) if first.is_empty() => return None,
                Segment::Parameter(name) => parameters.push((name.as_str(), first.to_owned())),
                Segment::Rest(name) => {
                    let all = whole.trim_end_matches('/');
                    if all.is_empty() {
                        return None;
                    }
                    parameters.push((name.as_str(), all.to_owned()));
                    return Some(parameters);
                }
            }
            rest = following;
        }
        rest.is_none().then_some(parameters)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for text in ["a", "/{}", "/{a}/{a}", "/{a+}/b", "/x{a}", "/{a}{b}", "/{+}"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
        assert!(Pattern::parse("/{a+}/").is_ok());
    }
}
