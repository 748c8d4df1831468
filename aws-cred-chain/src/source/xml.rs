//! The subset of XML in the answers of STS. Pure.

/// Returns the text between the first `<name ..>` and `</name>`. Entities are not decoded.
pub(crate) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let mut from = 0;
    loop {
        let at = from + xml.get(from..)?.find('<')?;
        let tag = xml.get(at + 1..)?;
        from = at + 1;
        let Some(rest) = tag.strip_prefix(name) else {
            continue;
        };
        if !rest.starts_with(['>', ' ', '\t', '\r', '\n']) {
            continue;
        }
        let start = at + 1 + name.len() + rest.find('>')? + 1;
        let end = start + xml.get(start..)?.find(&format!("</{name}>"))?;
        return xml.get(start..end);
    }
}

/// Returns an element's text, trimmed and with its entities decoded.
pub(crate) fn text(xml: &str, name: &str) -> Option<String> {
    let raw = element(xml, name)?.trim();
    if !raw.contains('&') {
        return Some(raw.to_owned());
    }
    Some(
        raw.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&#39;", "'")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_elements() {
        let xml = "<A xmlns=\"x\"><AB>1</AB><B> a &amp; b </B></A>";
        assert_eq!(text(xml, "B").as_deref(), Some("a & b"));
        assert_eq!(element(xml, "AB"), Some("1"));
        assert!(element(xml, "A").unwrap().starts_with("<AB>"));
        assert_eq!(element("<A", "A"), None);
        assert_eq!(element("<A>", "A"), None);
        assert_eq!(element(&"<".repeat(10_000), "A"), None);
    }
}
