//! One shared file's text to its sections, by the AWS SDKs' rules. Pure.

use std::borrow::Cow;

/// A section as it stands in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawSection<'a> {
    /// The text between the brackets, trimmed.
    pub(super) header: &'a str,
    pub(super) line: usize,
    pub(super) properties: Vec<RawProperty<'a>>,
}

/// A property as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawProperty<'a> {
    pub(super) key: &'a str,
    pub(super) value: Cow<'a, str>,
    pub(super) line: usize,
}

/// A line that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) problem: &'static str,
}

/// Splits `text` into sections.
///
/// A line that begins with a blank continues the property above; one that begins with `#` or `;` is a
/// comment; inside a line a comment needs a blank before it, after a section's bracket it needs none.
/// A byte order mark at the start, which editors on Windows write, is not part of the text.
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

/// Cuts a comment that has a blank before it.
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
    // A value that began empty holds sub-properties, and each line of it must be one.
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
