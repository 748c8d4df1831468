//! The endpoint's chain: option, service's variable, variable, services section, profile, standard.

use crate::error::Error;
use crate::settings::options::Options;
use crate::settings::region;
use crate::settings::run::Run;
use crate::trace::Origin;
use crate::world::Context;

/// Where a service is reached and with which region requests to it are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The URL, without a slash at its end.
    pub url: String,
    /// The region to sign with.
    pub signing_region: String,
    /// What named the URL; [`Origin::Default`] for the standard one.
    pub origin: Origin,
}

/// Finds the endpoint of `service`, named as in `AWS_ENDPOINT_URL_<SERVICE>`: `s3`, `sts`, `sso_oidc`.
///
/// # Errors
///
/// [`Error::Invalid`] for files that cannot be read, an endpoint that is no URL, and flags that are
/// neither `true` nor `false`.
pub async fn endpoint(
    context: &Context,
    options: &Options,
    service: &str,
) -> Result<Endpoint, Error> {
    of(&mut Run::new(context, options), service, None).await
}

/// Finds the endpoint of `service`; `region` is that of the service where it has its own.
pub(crate) async fn of(
    run: &mut Run<'_>,
    service: &str,
    region: Option<&str>,
) -> Result<Endpoint, Error> {
    let region = match region {
        Some(region) => Some(region.to_owned()),
        None => region::configured(run).await?.map(|(region, _)| region),
    };
    let signing_region = region.clone().unwrap_or_else(|| "us-east-1".to_owned());
    let Some((url, origin)) = configured(run, service).await? else {
        let fips = match run.options.use_fips {
            Some(fips) => fips,
            None => run.flag("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint").await?,
        };
        let dual = match run.options.use_dual_stack {
            Some(dual) => dual,
            None => run.flag("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint").await?,
        };
        return Ok(Endpoint {
            url: standard(service, region.as_deref(), fips, dual),
            signing_region,
            origin: Origin::Default,
        });
    };
    let uri: http::Uri = url
        .parse()
        .map_err(|_| Error::invalid("endpoint is not a URL".to_owned(), origin.clone()))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
        let problem = "endpoint is not an http or https URL";
        return Err(Error::invalid(problem, origin));
    }
    Ok(Endpoint { url: url.trim_end_matches('/').to_owned(), signing_region, origin })
}

async fn configured(run: &mut Run<'_>, service: &str) -> Result<Option<(String, Origin)>, Error> {
    if let Some(url) = &run.options.endpoint_url {
        return Ok(Some((url.clone(), Origin::Option("endpoint-url"))));
    }
    let ignored = match run.options.ignore_configured_endpoint_urls {
        Some(ignored) => ignored,
        None => {
            let key = "ignore_configured_endpoint_urls";
            run.flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", key).await?
        }
    };
    if ignored {
        return Ok(None);
    }
    let upper = service.to_ascii_uppercase().replace(['-', ' '], "_");
    for variable in [format!("AWS_ENDPOINT_URL_{upper}"), "AWS_ENDPOINT_URL".to_owned()] {
        if let Some(url) = run.context.var(&variable)? {
            return Ok(Some((url, Origin::Variable(variable.into()))));
        }
    }
    let Some(profile) = run.profile() else {
        return Ok(None);
    };
    let section = match profile.property("services") {
        None => None,
        Some(named) => match run.profiles().services.get(&named.value) {
            None => {
                let problem = format!("[services {}] is not there", named.value);
                return Err(Error::invalid(problem, named.origin()));
            }
            section => section,
        },
    };
    let lower = upper.to_ascii_lowercase();
    let of_service = section.and_then(|section| section.sub_property(&lower, "endpoint_url"));
    if let Some((url, origin)) = of_service {
        return Ok(Some((url.to_owned(), origin)));
    }
    let property = profile.property("endpoint_url");
    Ok(property.map(|property| (property.value.clone(), property.origin())))
}

/// Returns the standard endpoint by the partitions of AWS's endpoint rules.
fn standard(service: &str, region: Option<&str>, fips: bool, dual_stack: bool) -> String {
    let Some(region) = region else {
        return format!("https://{}.amazonaws.com", host_name(service));
    };
    let (suffix, dual_suffix) = suffixes(region);
    if service == "signin" {
        return format!("https://{region}.signin.aws.amazon.com");
    }
    // STS of the GovCloud regions is FIPS by itself and has no other name.
    let fips = fips && !(service == "sts" && region.starts_with("us-gov-"));
    let fips = if fips { "-fips" } else { "" };
    let suffix = if dual_stack { dual_suffix } else { suffix };
    format!("https://{}{fips}.{region}.{suffix}", host_name(service))
}

fn host_name(service: &str) -> &str {
    match service {
        "sso" => "portal.sso",
        "sso_oidc" => "oidc",
        other => other,
    }
}

/// Returns the DNS suffix of a region's partition, and that of its dual-stack endpoints.
fn suffixes(region: &str) -> (&'static str, &'static str) {
    const PARTITIONS: [(&str, &str, &str); 6] = [
        ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
        ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
        ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ];
    PARTITIONS
        .iter()
        .find(|(prefix, ..)| region.starts_with(prefix))
        .map_or(("amazonaws.com", "api.aws"), |(_, suffix, dual)| (suffix, dual))
}
