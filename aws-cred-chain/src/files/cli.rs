//! One shared file's text to its sections, by the AWS CLI's rules: those of Python's `configparser`
//! (`RawConfigParser`, strict) that botocore reads with. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::parse::{RawProperty, RawSection, SyntaxError};

/// Splits `text` into sections.
///
/// Differs from the SDKs' rules: `:` separates too; a comment takes a whole line (blanks before it
/// allowed) and is never cut from the end of one; a line continues a value when it is indented deeper
/// than its key; a section or key that stands twice is an error.
pub(super) fn parse(text: &str) -> Result<Vec<RawSection<'_>>, SyntaxError> {
    let mut sections: Vec<RawSection<'_>> = Vec::new();
    let mut seen_sections = BTreeSet::new();
    let mut seen_keys = BTreeSet::new();
    let mut key_indent = 0;
    let mut open = false; // a property that the next line may continue
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let error = |problem| SyntaxError { line: number, problem };
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        if open && indent > key_indent {
            if let Some(property) = last_property(&mut sections) {
                let value = property.value.to_mut();
                value.push('\n');
                value.push_str(trimmed);
            }
            continue;
        }
        key_indent = indent;
        if let Some(rest) = trimmed.strip_prefix('[')
            && let Some(end) = rest.rfind(']').filter(|end| *end > 0)
        {
            let header = &rest[..end];
            if !seen_sections.insert(header) {
                return Err(error("section stands twice"));
            }
            seen_keys.clear();
            open = false;
            sections.push(RawSection { header, line: number, properties: Vec::new() });
            continue;
        }
        let section =
            sections.last_mut().ok_or_else(|| error("property stands before any section"))?;
        let (key, value) =
            trimmed.split_once(['=', ':']).ok_or_else(|| error("neither section nor property"))?;
        let key = key.trim();
        if key.is_empty() || !seen_keys.insert(key.to_lowercase()) {
            return Err(error("property without a name, or that stands twice"));
        }
        open = true;
        section.properties.push(RawProperty {
            key,
            value: Cow::Borrowed(value.trim()),
            line: number,
        });
    }
    Ok(sections)
}

fn last_property<'s, 'a>(sections: &'s mut [RawSection<'a>]) -> Option<&'s mut RawProperty<'a>> {
    sections.last_mut()?.properties.last_mut()
}

/// Splits like Python's `shlex.split`: blanks separate, quotes and backslashes keep. `None` where a
/// quote or an escape is not closed.
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
        assert!(parse("[a]\n[a]\n").is_err());
    }
}
