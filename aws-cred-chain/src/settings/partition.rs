//! Standard endpoints by partition, and the exceptions of single services. Pure.

use super::partition_rows::{Partition, Place};
use super::partition_table::{EXCEPTIONS, PARTITIONS, SIGNED_AS};

/// A standard endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) url: String,
    pub(super) signing_region: String,
}

/// Returns the standard endpoint of `service`.
///
/// `us-east-1-fips` and `fips-us-east-1` mean FIPS in `us-east-1`. A region that belongs to no
/// known partition is treated as one of the partition `aws`.
///
/// # Errors
///
/// A message, if the region's partition does not have the wanted kind of endpoint.
pub(super) fn standard(
    service: &str,
    region: &str,
    fips: bool,
    dual_stack: bool,
) -> Result<Standard, String> {
    let bare = region.strip_prefix("fips-").or_else(|| region.strip_suffix("-fips"));
    let (region, fips) = bare.map_or((region, fips), |bare| (bare, true));
    let partition = PARTITIONS.iter().find(|it| it.has(region)).unwrap_or(&PARTITIONS[0]);
    for (wanted, there, what) in
        [(fips, partition.has_fips, "FIPS"), (dual_stack, partition.has_dual_stack, "dual-stack")]
    {
        // Like botocore, names such as `aws-iso-f-global` are not checked.
        if wanted && !there && !partition.others.contains(&region) {
            let name = partition.name;
            return Err(format!("partition {name} of region {region} has no {what} endpoints"));
        }
    }
    let signed_as = SIGNED_AS.iter().find(|(of, name, _)| (*of, *name) == (service, region));
    let signing_region = signed_as.map_or(region, |(_, _, name)| name).to_owned();
    let exception = |place: Place| {
        EXCEPTIONS.iter().find(|it| {
            it.service == service
                && it.place == place
                && (it.fips, it.dual_stack) == (fips, dual_stack)
        })
    };
    let of_region = EXCEPTIONS.iter().find(|it| {
        it.service == service
            && matches!(it.place, Place::Region(name) if name == region)
            && (it.fips, it.dual_stack) == (fips, dual_stack)
    });
    let url = match of_region.or_else(|| exception(Place::Partition(partition.name))) {
        Some(exception) => exception.url.replace("{region}", region),
        None => {
            let fips = if fips { "-fips" } else { "" };
            let suffix = if dual_stack { partition.dual_stack_suffix } else { partition.suffix };
            format!("https://{}{fips}.{region}.{suffix}", host(service))
        }
    };
    Ok(Standard { url, signing_region })
}

/// Returns the first labels of a service's host names.
pub(super) fn host(service: &str) -> String {
    match service {
        "sso" => "portal.sso".to_owned(),
        "sso_oidc" => "oidc".to_owned(),
        other => other.replace('_', "-"),
    }
}

impl Partition {
    fn has(&self, region: &str) -> bool {
        let is_word = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let fits = |prefix: &&str| {
            region
                .strip_prefix(*prefix)
                .and_then(|rest| rest.rsplit_once('-'))
                .is_some_and(|(word, number)| is_word(word) && is_number(number))
        };
        self.others.contains(&region) || self.prefixes.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_exceptions() {
        let check = |service, region, fips, dual, expected: Result<(&str, &str), ()>| {
            let found = standard(service, region, fips, dual);
            let found = found.as_ref().map(|it| (it.url.as_str(), it.signing_region.as_str()));
            assert_eq!(found.map_err(|_| ()), expected, "{service} {region} {fips} {dual}");
        };
        let url = "https://oidc.us-gov-west-1.amazonaws.com";
        check("sso_oidc", "us-gov-west-1", true, false, Ok((url, "us-gov-west-1")));
        let url = "https://sts-fips.us-gov-west-1.api.aws";
        check("sts", "us-gov-west-1", true, true, Ok((url, "us-gov-west-1")));
        check("sts", "aws-global", false, false, Ok(("https://sts.amazonaws.com", "us-east-1")));
        let url = "https://sts-fips.us-east-1.amazonaws.com";
        check("sts", "us-east-1-fips", false, false, Ok((url, "us-east-1")));
        check("sts", "us-isof-south-1", false, true, Err(()));
        let url = "https://lambda.eu-future-9.amazonaws.com";
        check("lambda", "eu-future-9", false, false, Ok((url, "eu-future-9")));
    }
}
