//! The lineage in a trace header: which functions an invocation came through, and how often through
//! each.
//!
//! SDKs in functions pass the trace header on with what they call, so that a loop of functions is
//! seen.
//!
//! Source: AWS, "Use Lambda recursive loop detection to prevent infinite loops".

/// How often an invocation may come through the same function; AWS ends a loop after about 16
/// times.
pub(crate) const PASSES_MAX: u32 = 16;

/// Adds a function to the lineage of a trace header. Returns the header, and how often the
/// invocation has come through the function, this time included.
pub(crate) fn passed(trace: &str, function_arn: &str) -> (String, u32) {
    let digest = crate::code::CodeDigest::of(function_arn.as_bytes()).hex();
    let own = &digest[..HASH_LETTERS];
    let parts = trace.split(';').filter(|part| !part.is_empty());
    let (lineage, others): (Vec<&str>, Vec<&str>) =
        parts.partition(|part| part.trim().starts_with(NAME));
    let entries = lineage.iter().flat_map(|it| it.trim()[NAME.len()..].split('|'));
    let mut entries: Vec<(&str, u32)> = entries.filter_map(entry).collect();
    let times = match entries.iter_mut().find(|(hash, _)| *hash == own) {
        Some((_, times)) => {
            *times = times.saturating_add(1);
            *times
        }
        None => {
            entries.insert(0, (own, 1));
            1
        }
    };
    entries.truncate(ENTRIES_MAX);
    let entries: Vec<String> =
        entries.iter().map(|(hash, times)| format!("{hash}:{times}")).collect();
    let mut header = others.join(";");
    if !header.is_empty() {
        header.push(';');
    }
    header.push_str(&format!("{NAME}{}", entries.join("|")));
    (header, times)
}

/// Reads `HASH:COUNT`.
fn entry(text: &str) -> Option<(&str, u32)> {
    let (hash, times) = text.split_once(':')?;
    let is_hash = hash.len() == HASH_LETTERS && hash.bytes().all(|it| it.is_ascii_hexdigit());
    is_hash.then_some(())?;
    Some((hash, times.parse().ok()?))
}

const NAME: &str = "Lineage=";
const HASH_LETTERS: usize = 8;
/// The most functions in a lineage; older ones are left out.
const ENTRIES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_is_counted_for_each_function() {
        let (first, times) = passed("Root=1-2-3;Parent=4;Sampled=0", "arn:f");
        assert_eq!(times, 1);
        assert!(first.starts_with("Root=1-2-3;Parent=4;Sampled=0;Lineage="), "{first}");
        let (second, times) = passed(&first, "arn:g");
        assert_eq!(times, 1);
        let (third, times) = passed(&second, "arn:f");
        assert_eq!((times, third.matches(':').count()), (2, 2), "{third}");
        assert_eq!(passed("", "arn:f").1, 1);
    }

    #[test]
    fn a_lineage_is_bounded_and_takes_no_rubbish() {
        let long: Vec<String> = (0..1000).map(|it| format!("{it:08x}:1")).collect();
        let (header, times) = passed(&format!("Lineage={}", long.join("|")), "arn:f");
        assert_eq!((header.matches(':').count(), times), (ENTRIES_MAX, 1));
        let hash = header[NAME.len()..].split(':').next().unwrap();
        let full = format!("Lineage={hash}:{}", u32::MAX);
        assert_eq!(passed(&full, "arn:f").1, u32::MAX);
        for rubbish in
            ["Lineage=", "Lineage=x", "Lineage=00000000:-1", "Lineage=é:1;;", "Lineage=1:1|2"]
        {
            assert_eq!(passed(rubbish, "arn:f").1, 1, "{rubbish}");
        }
    }
}
