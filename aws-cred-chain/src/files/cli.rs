//! Parses the text of one shared file into sections, by the rules of Python's `configparser`
//! (`RawConfigParser`, strict), with which botocore and so the AWS CLI read it. Pure.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use super::parse::{RawProperty, RawSection, SyntaxError};

/// The section whose properties are defaults of all other sections.
const FOR_ALL: &str = "DEFAULT";
/// The most properties that are copied from `[DEFAULT]` into other sections.
const COPIES_MAX: usize = 100_000;

/// Splits `text` into sections.
///
/// The rules differ from those of the SDKs:
///
/// - `:` separates a key from its value too.
/// - A comment takes a whole line, with blanks allowed before it. A comment is never cut from the
///   end of a line.
/// - A line that is indented deeper than the key of the value above continues that value. So does a
///   blank line.
/// - A section or key that occurs twice is an error.
/// - A lone carriage return ends a line.
/// - The properties of `[DEFAULT]` belong to all sections.
///
/// A byte order mark at the start is skipped. Editors on Windows write it; the AWS CLI refuses it.
pub(super) fn parse(text: &str) -> Result<Vec<RawSection<'_>>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut file = File::default();
    for (index, line) in lines(text).enumerate() {
        let number = index + 1;
        file.line(number, line).map_err(|problem| SyntaxError { line: number, problem })?;
    }
    file.finish()
}

/// The sections parsed so far, and the state of the parser.
#[derive(Default)]
struct File<'a> {
    sections: Vec<RawSection<'a>>,
    names: HashSet<&'a str>,
    for_all: Option<RawSection<'a>>,
    /// Whether the current section is `[DEFAULT]`.
    in_for_all: bool,
    /// The keys of the current section, if it has many.
    keys: BTreeSet<String>,
    key_indent: usize,
    /// Whether the next line may continue the value above.
    open: bool,
}

impl<'a> File<'a> {
    fn line(&mut self, number: usize, line: &'a str) -> Result<(), &'static str> {
        let trimmed = line.trim_matches(is_blank);
        if trimmed.starts_with(['#', ';']) {
            return Ok(());
        }
        if trimmed.is_empty() {
            if self.open {
                self.append("");
            }
            return Ok(());
        }
        let indent = indent(line);
        if self.open && indent > self.key_indent {
            self.append(trimmed);
            return Ok(());
        }
        self.key_indent = indent;
        if let Some(rest) = trimmed.strip_prefix('[')
            && let Some(end) = rest.rfind(']').filter(|end| *end > 0)
        {
            return self.header(number, &rest[..end]);
        }
        self.property(number, trimmed)
    }

    fn header(&mut self, number: usize, header: &'a str) -> Result<(), &'static str> {
        self.open = false;
        self.in_for_all = header == FOR_ALL;
        let section = RawSection { header, line: number, properties: Vec::new() };
        self.keys.clear();
        if self.in_for_all {
            // `[DEFAULT]` may occur more than once; its keys may not.
            self.for_all.get_or_insert(section);
            return Ok(());
        }
        if !self.names.insert(header) {
            return Err("section stands twice");
        }
        self.sections.push(section);
        Ok(())
    }

    fn property(&mut self, number: usize, line: &'a str) -> Result<(), &'static str> {
        if self.current().is_none() {
            return Err("property stands before any section");
        }
        let (key, value) = line.split_once(['=', ':']).ok_or("neither section nor property")?;
        let key = key.trim_end_matches(is_blank);
        if key.is_empty() {
            return Err("property without a name");
        }
        if !self.is_new(key) {
            return Err("property stands twice");
        }
        self.open = true;
        let value = Cow::Borrowed(value.trim_matches(is_blank));
        if let Some(section) = self.current() {
            section.properties.push(RawProperty { key, value, line: number });
        }
        Ok(())
    }

    /// Returns whether the current section has no property with this key. Few keys are compared one
    /// by one, many by a set.
    fn is_new(&mut self, key: &str) -> bool {
        const FEW: usize = 16;
        let Some(section) = self.current() else {
            return true;
        };
        let known = &section.properties;
        if known.len() < FEW && key.is_ascii() && known.iter().all(|known| known.key.is_ascii()) {
            return !known.iter().any(|known| known.key.eq_ignore_ascii_case(key));
        }
        let lower: Vec<String> = known.iter().take(FEW).map(|it| it.key.to_lowercase()).collect();
        self.keys.extend(lower);
        self.keys.insert(key.to_lowercase())
    }

    fn append(&mut self, line: &str) {
        if let Some(property) = self.current().and_then(|section| section.properties.last_mut()) {
            let value = property.value.to_mut();
            value.push('\n');
            value.push_str(line);
        }
    }

    fn current(&mut self) -> Option<&mut RawSection<'a>> {
        if self.in_for_all { self.for_all.as_mut() } else { self.sections.last_mut() }
    }

    fn finish(mut self) -> Result<Vec<RawSection<'a>>, SyntaxError> {
        let for_all = self.for_all.take();
        let line = for_all.as_ref().map_or(0, |section| section.line);
        let for_all = for_all.map_or_else(Vec::new, |section| section.properties);
        if for_all.len().saturating_mul(self.sections.len()) > COPIES_MAX {
            let problem = "too many properties for too many sections";
            return Err(SyntaxError { line, problem });
        }
        for section in &mut self.sections {
            if !for_all.is_empty() {
                let own: HashSet<String> =
                    section.properties.iter().map(|own| own.key.to_lowercase()).collect();
                let missing = for_all.iter().filter(|it| !own.contains(&it.key.to_lowercase()));
                section.properties.extend(missing.cloned());
            }
            for property in &mut section.properties {
                if property.value.contains('\n') {
                    let end = property.value.trim_end_matches(is_blank).len();
                    property.value.to_mut().truncate(end);
                    check_nested(property)?;
                }
            }
        }
        Ok(self.sections)
    }
}

/// Checks a value that begins on the line after its key: each of its lines must be a sub-property.
fn check_nested(property: &RawProperty<'_>) -> Result<(), SyntaxError> {
    let is_wrong = |line: &str| !line.trim_matches(is_blank).is_empty() && !line.contains('=');
    if property.value.starts_with('\n') && property.value.split(ends_line).any(is_wrong) {
        return Err(SyntaxError {
            line: property.line,
            problem: "a line of the indented block below this has no '='",
        });
    }
    Ok(())
}

/// The characters at which Python's `str.splitlines` splits. botocore splits sub-properties by it.
fn ends_line(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The characters that Python's `str.strip` removes and its `\s` matches.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Counts the blanks at the start of `line`.
fn indent(line: &str) -> usize {
    line.chars().take_while(|c| is_blank(*c)).count()
}

/// Splits at line feeds, carriage returns, and the pair of both.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let after = if text[at..].starts_with("\r\n") { at + 2 } else { at + 1 };
        rest = Some(&text[after..]);
        Some(&text[..at])
    })
}

/// Splits as Python's `shlex.split` does: at blanks, except in quotes and after a backslash.
/// Returns `None` if a quote or an escape is not closed.
pub(crate) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_shlex_does() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let expected = expected.map(|words| words.iter().map(|w| w.to_string()).collect());
            assert_eq!(split(text), expected, "{text}");
        };
        check("a  b", Some(&["a", "b"]));
        check(r#""a b" 'c "d'"#, Some(&["a b", "c \"d"]));
        check(r#"a\ b "\"" "\n" '' "#, Some(&["a b", "\"", "\\n", ""]));
        check("'open", None);
        check("open\\", None);
        check("x'y'z", Some(&["xyz"]));
    }

    #[test]
    fn keeps_what_the_sdks_cut() {
        let sections = parse("[profile a]\nk = v # not a comment\nx: y\n").unwrap();
        assert_eq!(sections[0].properties[0].value, "v # not a comment");
        assert_eq!(sections[0].properties[1].value, "y");
        for refused in ["[a]\n[a]\n", "[a]\nk=1\nK=2\n", "k=1\n", "[a]\nk\n", "[a]\ns3 =\n  fast\n"]
        {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }

    /// The parsed form of a file of allowed size must not grow far beyond it in memory.
    #[test]
    fn the_section_for_all_is_not_copied_without_bound() {
        let keys: String = (0..10_000).map(|n| format!("k{n}=v\n")).collect();
        let sections: String = (0..10_000).map(|n| format!("[s{n}]\n")).collect();
        let error = parse(&format!("[DEFAULT]\n{keys}{sections}")).unwrap_err();
        assert_eq!(error.line, 1);
        assert!(parse(&format!("[DEFAULT]\nk=v\n{sections}")).is_ok());
    }

    #[test]
    fn reads_as_configparser_does() {
        let check = |text: &str, expected: &[(&str, &[(&str, &str)])]| {
            let sections = parse(text).unwrap();
            let found: Vec<(&str, Vec<(&str, &str)>)> = sections
                .iter()
                .map(|section| {
                    let pairs = section.properties.iter().map(|p| (p.key, &*p.value));
                    (section.header, pairs.collect())
                })
                .collect();
            let expected: Vec<_> = expected.iter().map(|(h, pairs)| (*h, pairs.to_vec())).collect();
            assert_eq!(found, expected, "{text:?}");
        };
        // A comment between the lines of a value is not part of it, whatever its indentation.
        check("[a]\nk = v\n  # c\nl = w\n", &[("a", &[("k", "v"), ("l", "w")])]);
        check("[a]\n  k = v\n  l = w\n", &[("a", &[("k", "v"), ("l", "w")])]);
        check("[a]\nk =\n\n  x = 1\n\n\n", &[("a", &[("k", "\n\nx = 1")])]);
        check("[a]\rk=v\r\nl=w", &[("a", &[("k", "v"), ("l", "w")])]);
        check("[DEFAULT]\nd=1\n[a]\nD=2\n[b]\n", &[("a", &[("D", "2")]), ("b", &[("d", "1")])]);
        check("[a] b]c\nk=v\n", &[("a] b", &[("k", "v")])]);
        check("\u{feff}[a]\nk=v", &[("a", &[("k", "v")])]);
    }
}
