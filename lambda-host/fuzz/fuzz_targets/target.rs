#![no_main]
//! Parses a function's name or ARN with a separate qualifier. The parser must not panic, and what
//! it accepts must print as the same text.

use lambda_host::{FunctionName, Target, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (name, qualifier) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(name) = name.parse::<FunctionName>() {
        assert_eq!(name.as_str().parse::<FunctionName>().ok(), Some(name.clone()));
    }
    if let Ok(version) = qualifier.parse::<Version>() {
        assert_eq!(version.to_string().parse::<Version>(), Ok(version));
    }
    let Ok(target) = name.parse::<Target>() else { return };
    assert!(target.name.as_str().len() <= 64);
    let target = target.clone().with_qualifier(qualifier).unwrap_or(target);
    // AWS's pattern of a qualifier beside a name has `$`, which no version and no alias has.
    let names_nothing = target.qualifier.iter().any(|it| it.contains('$') && it != "$LATEST");
    if !names_nothing && (target.region.is_none() || target.account.is_some()) {
        let again: Target = target.to_string().parse().unwrap();
        assert_eq!((again.name, again.qualifier), (target.name, target.qualifier));
    }
});
