//! Parses the text of one shared file into sections, by the rules of the AWS SDKs. Pure.

use std::borrow::Cow;

/// A section of one file, before the two files are joined.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawSection<'a> {
    /// The text between the brackets, trimmed.
    pub(super) header: &'a str,
    pub(super) line: usize,
    pub(super) properties: Vec<RawProperty<'a>>,
}

/// A property of one file, before the two files are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawProperty<'a> {
    pub(super) key: &'a str,
    pub(super) value: Cow<'a, str>,
    pub(super) line: usize,
}

/// A line that cannot be parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) problem: &'static str,
}

/// Splits `text` into sections.
///
/// - A line that begins with a blank continues the property above.
/// - A line that begins with `#` or `;` is a comment. Within a line, a comment needs a blank before
///   it; after the bracket of a section it needs none.
/// - A byte order mark at the start, which editors on Windows write, is skipped.
pub(super) fn parse(text: &str) -> Result<Vec<RawSection<'_>>, SyntaxError> {
    let mut sections: Vec<RawSection<'_>> = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        let error = |problem| SyntaxError { line: number, problem };
        if line.trim().is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            sections.push(RawSection {
                header: header(line).map_err(error)?,
                line: number,
                properties: Vec::new(),
            });
        } else if line.starts_with(char::is_whitespace) {
            let section = sections
                .last_mut()
                .ok_or_else(|| error("Expected a profile definition, found continuation"))?;
            let property = section
                .properties
                .last_mut()
                .ok_or_else(|| error("Expected a property definition, found continuation"))?;
            continuation(property, line.trim()).map_err(error)?;
        } else {
            let section =
                sections.last_mut().ok_or_else(|| error("Expected a profile definition"))?;
            let (key, value) = property(line).map_err(error)?;
            section.properties.push(RawProperty { key, value: Cow::Borrowed(value), line: number });
        }
    }
    Ok(sections)
}

fn header(line: &str) -> Result<&str, &'static str> {
    let line = &line[..line.find(['#', ';']).unwrap_or(line.len())];
    line.trim_end()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .map(str::trim)
        .ok_or("Profile definition must end with ']'")
}

fn property(line: &str) -> Result<(&str, &str), &'static str> {
    let line = without_comment(line);
    let (key, value) = line.split_once('=').ok_or("Expected an '=' sign defining a property")?;
    if key.trim().is_empty() {
        return Err("Property did not have a name");
    }
    Ok((key.trim(), value.trim()))
}

/// Returns the line without its comment. A comment begins with `#` or `;` after a blank.
fn without_comment(line: &str) -> &str {
    let bytes = line.as_bytes();
    let mut from = 1;
    while let Some(found) = line.get(from..).and_then(|rest| rest.find(['#', ';'])) {
        let at = from + found;
        if bytes[at - 1].is_ascii_whitespace() {
            return &line[..at];
        }
        from = at + 1;
    }
    line
}

fn continuation(property: &mut RawProperty<'_>, text: &str) -> Result<(), &'static str> {
    // If a value's first line is empty, its further lines are sub-properties.
    if property.value.is_empty() || property.value.starts_with('\n') {
        let (key, _) =
            text.split_once('=').ok_or("Expected an '=' sign defining a sub-property")?;
        if key.trim().is_empty() {
            return Err("Sub-property did not have a name");
        }
    }
    let value = property.value.to_mut();
    value.push('\n');
    value.push_str(text);
    Ok(())
}
