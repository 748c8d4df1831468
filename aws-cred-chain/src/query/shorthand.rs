//! Parses one level of the AWS CLI's shorthand: `Name=n,Values=a,"b,c"`, `Values=[a,b]`. Pure.

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// One text.
    One(String),
    /// A list, separated by commas or in brackets.
    Many(Vec<String>),
}

/// Parses keys and their values. `None` if the text is malformed or has a key twice.
pub(super) fn parse(text: &str) -> Option<Vec<(String, Value)>> {
    let mut parser = Parser { rest: text.trim_end_matches(['\n', '\r']) };
    let mut pairs: Vec<(String, Value)> = Vec::new();
    loop {
        let key = parser.key();
        parser.expect('=')?;
        let value = parser.values()?;
        if key.is_empty() || pairs.iter().any(|(known, _)| *known == key) {
            return None;
        }
        pairs.push((key, value));
        if parser.rest.is_empty() {
            return Some(pairs);
        }
        parser.expect(',')?;
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Consumes a character and the blanks around it.
    fn expect(&mut self, wanted: char) -> Option<()> {
        self.blanks();
        self.rest = self.rest.strip_prefix(wanted)?;
        self.blanks();
        Some(())
    }

    fn key(&mut self) -> String {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.#/:".contains(c);
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    fn take(&mut self, end: usize) -> String {
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken.to_owned()
    }

    fn values(&mut self) -> Option<Value> {
        if self.rest.starts_with('[') {
            return self.list().map(Value::Many);
        }
        if self.rest.starts_with('{') {
            return None;
        }
        let first = self.first()?;
        self.blanks();
        if !self.rest.starts_with(',') {
            return Some(Value::One(first));
        }
        let mut values = vec![first];
        // A text after a comma is another value, unless a `=` follows it: then it is the next key.
        loop {
            let before = self.rest;
            let Some(value) = self.another() else {
                self.rest = before;
                break;
            };
            values.push(value);
            if self.rest.is_empty() {
                break;
            }
        }
        match values.len() {
            1 => values.pop().map(Value::One),
            _ => Some(Value::Many(values)),
        }
    }

    /// Consumes a comma and the value after it. `None` unless a comma or the end follows the value.
    fn another(&mut self) -> Option<String> {
        self.expect(',')?;
        let value = match self.rest.chars().next()? {
            quote @ ('"' | '\'') => self.quoted(quote)?,
            _ => self.word(&['"', '\'', ',', '='])?,
        };
        self.blanks();
        (self.rest.is_empty() || self.rest.starts_with(',')).then_some(value)
    }

    fn list(&mut self) -> Option<Vec<String>> {
        self.expect('[')?;
        let mut values = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                return Some(values);
            }
            if self.rest.is_empty() || self.rest.starts_with(['[', '{']) {
                return None;
            }
            values.push(self.first()?);
            self.blanks();
            if !self.rest.starts_with(']') {
                self.expect(',')?;
            }
        }
    }

    fn first(&mut self) -> Option<String> {
        match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            _ => Some(self.word(&['"', '\'', ',', ']', '}']).unwrap_or_default()),
        }
    }

    /// Consumes a value in quotes. A backslash escapes the quote and itself.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            let escaped = self.rest[at + c.len_utf8()..].chars().next();
            match c {
                '\\' if escaped == Some(quote) || escaped == Some('\\') => {
                    value.extend(chars.next().map(|(_, c)| c));
                }
                c if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Some(value);
                }
                c => value.push(c),
            }
        }
        None
    }

    /// Consumes a value without quotes. A backslash escapes a comma.
    fn word(&mut self, ends: &[char]) -> Option<String> {
        let first = self.rest.chars().next()?;
        let starts = first.is_whitespace() || "\"',=[{".contains(first);
        if starts {
            return None;
        }
        let mut value = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            if c == '\\' && self.rest[at + 1..].starts_with(',') {
                value.extend(chars.next().map(|(_, c)| c));
            } else if at > 0 && ends.contains(&c) {
                end = at;
                break;
            } else {
                value.push(c);
            }
        }
        self.rest = &self.rest[end..];
        value.truncate(value.trim_end().len());
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_cli_reads() {
        let one = |text: &str| Value::One(text.to_owned());
        let many = |texts: &[&str]| Value::Many(texts.iter().map(ToString::to_string).collect());
        let check = |text: &str, expected: Option<&[(&str, Value)]>| {
            let expected = expected
                .map(|pairs| pairs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect());
            assert_eq!(parse(text), expected, "{text}");
        };
        check("a=b,c=d", Some(&[("a", one("b")), ("c", one("d"))]));
        check("a=b,c", Some(&[("a", many(&["b", "c"]))]));
        check("a=[b,c],d=e", Some(&[("a", many(&["b", "c"])), ("d", one("e"))]));
        check("a=[b]", Some(&[("a", many(&["b"]))]));
        check("a=[ b , \"c,d\" ]", Some(&[("a", many(&["b", "c,d"]))]));
        check("a=[]", Some(&[("a", many(&[]))]));
        check(r"a=b\,c,d", Some(&[("a", many(&["b,c", "d"]))]));
        check(r#"a="b\"c\\",'it\'s'"#, Some(&[("a", many(&["b\"c\\", "it's"]))]));
        check("a = b , c", Some(&[("a", many(&["b", "c"]))]));
        check("a=b=c", Some(&[("a", one("b=c"))]));
        check("a=x y,z", Some(&[("a", many(&["x y", "z"]))]));
        check("a=,b=c", Some(&[("a", one("")), ("b", one("c"))]));
        for bad in ["", "a", "a=b,a=c", "a=[b", "a={b=c}", "a=\"b", "=a", "a=b,"] {
            check(bad, None);
        }
    }
}
