//! Targets: a function as a caller names it, by name or ARN, with or without a qualifier.

use std::fmt;
use std::str::FromStr;

use super::limits::Constraint;
use super::name::{FIELD, FunctionName, is_word};
use crate::error::Error;

/// A function as a caller names it.
///
/// ```
/// use lambda_host::Target;
///
/// let target: Target = "arn:aws:lambda:us-east-1:123456789012:function:hello:live".parse()?;
/// assert_eq!(target.name.as_str(), "hello");
/// assert_eq!(target.account.as_deref(), Some("123456789012"));
/// assert_eq!(target.qualifier.as_deref(), Some("live"));
/// # Ok::<(), lambda_host::Error>(())
/// ```
///
/// The forms are those of AWS's `FunctionName` parameter: an ARN, of which each part but the name
/// may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The function's name.
    pub name: FunctionName,
    /// The region of an ARN.
    pub region: Option<String>,
    /// The account of a full or partial ARN, twelve digits.
    pub account: Option<String>,
    /// A version, an alias or `$LATEST`.
    pub qualifier: Option<String>,
}

impl Target {
    /// Adds a qualifier that the request has beside the name, such as the query parameter
    /// `Qualifier`.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Invalid`] if it is not a valid qualifier; [`Error::QualifiersDiffer`] if
    /// the name has another one.
    pub fn with_qualifier(mut self, qualifier: &str) -> Result<Self, Error> {
        check_qualifier(qualifier)?;
        match &self.qualifier {
            Some(own) if own != qualifier => {
                Err(Error::QualifiersDiffer { in_name: own.clone(), beside: qualifier.to_owned() })
            }
            _ => {
                self.qualifier = Some(qualifier.to_owned());
                Ok(self)
            }
        }
    }
}

impl From<FunctionName> for Target {
    fn from(name: FunctionName) -> Self {
        Self { name, region: None, account: None, qualifier: None }
    }
}

impl From<&FunctionName> for Target {
    fn from(name: &FunctionName) -> Self {
        Self::from(name.clone())
    }
}

impl TryFrom<&str> for Target {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::invalid(FIELD, text, Constraint::Pattern(PATTERN));
        if text.len() > LENGTH_MAX {
            return Err(Error::invalid(FIELD, text, Constraint::LengthAtMost(LENGTH_MAX)));
        }
        // Each part may be missing, as AWS's pattern has it.
        let mut rest = text;
        // Anything else that begins so is a function `arn` with a qualifier.
        if let Some(of_lambda) = of_lambda(text) {
            rest = of_lambda;
        }
        let mut part = |fits: fn(&str) -> bool| match rest.split_once(':') {
            Some((first, others)) if fits(first) => {
                rest = others;
                Some(first)
            }
            _ => None,
        };
        let (region, account) = (part(is_region), part(is_account));
        let rest = rest.strip_prefix("function:").unwrap_or(rest);
        let (name, qualifier) = match rest.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier)),
            None => (rest, None),
        };
        if qualifier.is_some_and(|it| it != LATEST && (it.is_empty() || !it.chars().all(is_word))) {
            return Err(invalid());
        }
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(invalid());
        }
        Ok(Self {
            name: name.parse()?,
            region: region.map(str::to_owned),
            account: account.map(str::to_owned),
            qualifier: qualifier.map(str::to_owned),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.region, &self.account) {
            (Some(region), Some(account)) => {
                write!(f, "arn:aws:lambda:{region}:{account}:function:")?
            }
            (_, Some(account)) => write!(f, "{account}:function:")?,
            // With a qualifier behind it, the name would be read as another part of an ARN.
            _ if self.qualifier.is_some() && is_other_part(self.name.as_str()) => {
                write!(f, "function:")?;
            }
            _ => {}
        }
        write!(f, "{}", self.name)?;
        self.qualifier.as_ref().map_or(Ok(()), |qualifier| write!(f, ":{qualifier}"))
    }
}

/// Returns what comes after the service in an ARN of Lambda.
fn of_lambda(text: &str) -> Option<&str> {
    let (partition, service) = text.strip_prefix("arn:")?.split_once(':')?;
    let fits = partition.is_empty()
        || partition.starts_with("aws")
            && partition.chars().all(|c| c.is_ascii_alphabetic() || c == '-');
    service.strip_prefix("lambda:").filter(|_| fits)
}

fn is_other_part(name: &str) -> bool {
    name == "function" || is_region(name) || is_account(name)
}

fn check_qualifier(qualifier: &str) -> Result<(), Error> {
    if !is_qualifier(qualifier) {
        let constraint = Constraint::Pattern(r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+");
        return Err(Error::invalid("qualifier", qualifier, constraint));
    }
    if qualifier.len() > QUALIFIER_LENGTH_MAX {
        let constraint = Constraint::LengthAtMost(QUALIFIER_LENGTH_MAX);
        return Err(Error::invalid("qualifier", qualifier, constraint));
    }
    Ok(())
}

/// Beside a name AWS takes a `$` anywhere, and finds nothing under it.
fn is_qualifier(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| is_word(c) || c == '$')
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|c| c.is_ascii_digit())
}

/// Returns whether the text has the form of a region: `us-east-1`, `us-gov-west-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_lowercase());
    let number = |part: &str| part.len() == 1 && part.bytes().all(|c| c.is_ascii_digit());
    match parts.as_slice() {
        [first, middle @ .., last] => {
            (1..=2).contains(&middle.len())
                && first.len() == 2
                && letters(first)
                && middle.iter().all(|part| letters(part))
                && number(last)
        }
        _ => false,
    }
}

/// The qualifier of a function's current code and settings.
pub(crate) const LATEST: &str = "$LATEST";
/// AWS's pattern of the `FunctionName` parameter.
const PATTERN: &str = r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-gov)?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?";
/// AWS's limit of a name with its qualifier. Where it is lower (140 for a new function), the API
/// says so first.
const LENGTH_MAX: usize = 256;
const QUALIFIER_LENGTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_is_taken() {
        let check = |text: &str, name: &str, account: Option<&str>, qualifier: Option<&str>| {
            let target: Target = text.parse().unwrap();
            let found =
                (target.name.as_str(), target.account.as_deref(), target.qualifier.as_deref());
            assert_eq!(found, (name, account, qualifier), "{text}");
        };
        let account = Some("123456789012");
        check("f", "f", None, None);
        check("f:$LATEST", "f", None, Some("$LATEST"));
        check("function:f", "f", None, None);
        check("123456789012:function:f", "f", account, None);
        check("123456789012:f:live", "f", account, Some("live"));
        check(
            "arn:aws:lambda:us-east-1:123456789012:function:my-f_2:7",
            "my-f_2",
            account,
            Some("7"),
        );
        check("arn:aws:lambda:us-east-1:123456789012:function", "function", account, None);
        check("us-east-1:123456789012:function:f", "f", account, None);
        check("arn:aws:lambda:f", "f", None, None);
        check("function:live", "live", None, None);
        check("arn:live", "arn", None, Some("live"));
        check("function:arn:live", "arn", None, Some("live"));
        check("arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f", "f", account, None);
    }

    #[test]
    fn a_name_like_another_part_of_an_arn_is_read_as_it_is_printed() {
        for name in ["function", "us-east-1", "123456789012", "f"] {
            let mut target = Target::from(name.parse::<FunctionName>().unwrap());
            assert_eq!(target.to_string().parse::<Target>().unwrap(), target, "{name}");
            target.qualifier = Some("live".to_owned());
            assert_eq!(target.to_string().parse::<Target>().unwrap(), target, "{name}");
        }
    }

    /// Mappings and destinations keep such ARNs and read them again.
    #[test]
    fn the_longest_alias_of_the_longest_name_has_an_arn_that_is_read() {
        let (name, alias) = ("n".repeat(64), "a".repeat(128));
        let arn =
            format!("arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:{name}:{alias}");
        for text in [arn, format!("{name}:{alias}")] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.name.as_str(), name);
            assert_eq!(target.qualifier.as_deref(), Some(alias.as_str()));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "a b",
            "../etc",
            "é",
            "f:",
            "f:a:b",
            "f:$latest",
            &"x".repeat(65),
            &format!("{}:{}", "x".repeat(64), "y".repeat(192)),
            "arn:aws:s3:us-east-1:123456789012:function:f",
            "arn:aws:lambda:us-east-1:1234:function:f",
            "arn:aws:lambda:nowhere:123456789012:function:f",
            "arn:aws:lambda:us-east-1:123456789012:layer:f:1",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn two_qualifiers_must_be_one() {
        let target: Target = "f:live".parse().unwrap();
        assert!(target.clone().with_qualifier("live").is_ok());
        assert!(matches!(target.with_qualifier("7"), Err(Error::QualifiersDiffer { .. })));
        let target: Target = "f".parse().unwrap();
        assert_eq!(target.with_qualifier("7").unwrap().to_string(), "f:7");
    }
}
