//! Literals that are not JSON, such as `` `running` ``. The AWS CLI and its documentation use them
//! as strings; the `jmespath` crate refuses them. Pure.

use std::borrow::Cow;

use serde_json::Value;

/// Puts double quotes around literals that are not JSON but become JSON by that.
pub(super) fn quoted(expression: &str) -> Cow<'_, str> {
    let mut text = String::new();
    let mut kept = 0;
    let mut open: Option<(u8, usize)> = None;
    let mut escaped = false;
    for (at, byte) in expression.bytes().enumerate() {
        match open {
            None if matches!(byte, b'\'' | b'"' | b'`') => open = Some((byte, at + 1)),
            None => {}
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some((end, from)) if byte == end => {
                open = None;
                let literal = &expression[from..at];
                if end == b'`' && is_bare(literal) {
                    text.push_str(&expression[kept..from]);
                    text.push('"');
                    text.push_str(literal.trim_start());
                    text.push('"');
                    kept = at;
                }
            }
            Some(_) => {}
        }
    }
    if kept == 0 {
        return Cow::Borrowed(expression);
    }
    text.push_str(&expression[kept..]);
    Cow::Owned(text)
}

fn is_bare(literal: &str) -> bool {
    let json = literal.replace("\\`", "`");
    serde_json::from_str::<Value>(&json).is_err()
        && serde_json::from_str::<String>(&format!("\"{}\"", json.trim_start())).is_ok()
}
