//! Finds an endpoint: option, service's variable, variable, services section, profile, standard.

use crate::error::Error;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::settings::{partition, region};
use crate::trace::Origin;
use crate::world::Context;

/// The URL of a service, and the region for the signatures of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The URL, without a slash at its end.
    pub url: String,
    /// The region to sign with.
    pub signing_region: String,
    /// Where the URL is configured; [`Origin::Default`] for AWS's standard endpoint.
    pub origin: Origin,
}

/// Finds the endpoint of `service`, named as in `AWS_ENDPOINT_URL_<SERVICE>`: `s3`, `sts`,
/// `sso_oidc`.
///
/// # Errors
///
/// [`Error::Invalid`] for files that cannot be read, an endpoint that is no URL, a flag that is
/// neither `true` nor `false`, and a kind of endpoint that the region's partition does not have.
pub async fn endpoint(
    context: &Context,
    options: &Options,
    service: &str,
) -> Result<Endpoint, Error> {
    of(&mut Run::new(context, options), service, None).await
}

/// Finds the endpoint of `service`. `region`, if given, replaces the configured region.
pub(crate) async fn of(
    run: &mut Run<'_>,
    service: &str,
    region: Option<&str>,
) -> Result<Endpoint, Error> {
    let region = match region {
        Some(region) => Some(region.to_owned()),
        None => region::configured(run).await?.map(|(region, _)| region),
    };
    let Some((url, origin)) = configured(run, service).await? else {
        return standard(run, service, region.as_deref()).await;
    };
    let signing_region = match &region {
        None => "us-east-1".to_owned(),
        Some(region) => match partition::standard(service, region, false, false) {
            Ok(standard) => standard.signing_region,
            Err(_) => region.clone(),
        },
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

/// Returns the standard endpoint of the region's partition, with FIPS and dual stack as configured.
async fn standard(
    run: &mut Run<'_>,
    service: &str,
    region: Option<&str>,
) -> Result<Endpoint, Error> {
    let (fips, dual_stack) = flags(run).await?;
    let Some(region) = region else {
        return Ok(Endpoint {
            url: format!("https://{}.amazonaws.com", partition::host(service)),
            signing_region: "us-east-1".to_owned(),
            origin: Origin::Default,
        });
    };
    let found = partition::standard(service, region, fips, dual_stack)
        .map_err(|problem| Error::invalid(problem, Origin::Default))?;
    let (url, signing_region) = (found.url, found.signing_region);
    Ok(Endpoint { url, signing_region, origin: Origin::Default })
}

/// Returns whether FIPS endpoints and dual-stack endpoints are wanted, in that order.
async fn flags(run: &mut Run<'_>) -> Result<(bool, bool), Error> {
    let fips = match run.options.use_fips {
        Some(fips) => fips,
        None => run.flag("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint").await?,
    };
    let dual_stack = match run.options.use_dual_stack {
        Some(dual_stack) => dual_stack,
        None => run.flag("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint").await?,
    };
    Ok((fips, dual_stack))
}

/// Finds the endpoint of a directory bucket of S3 Express One Zone. `zone` is the zone's id, such
/// as `use1-az4`.
pub(crate) async fn of_directory_bucket(
    run: &mut Run<'_>,
    bucket: &str,
    zone: &str,
) -> Result<Endpoint, Error> {
    let mut endpoint = of(run, "s3", None).await?;
    if endpoint.origin != Origin::Default {
        // An IP address cannot have the bucket's name as a prefix.
        let uri: http::Uri = endpoint.url.parse().unwrap_or_default();
        let is_address = uri
            .host()
            .is_some_and(|host| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok());
        endpoint.url = match (is_address, endpoint.url.split_once("://")) {
            (false, Some((scheme, rest))) => format!("{scheme}://{bucket}.{rest}"),
            _ => format!("{}/{bucket}", endpoint.url),
        };
        return Ok(endpoint);
    }
    let (fips, dual_stack) = flags(run).await?;
    let Some((region, _)) = region::configured(run).await? else {
        let problem = "a directory bucket needs a region, and none is set";
        return Err(Error::invalid(problem, Origin::Default));
    };
    let found = partition::standard("s3express", &region, fips, false)
        .map_err(|problem| Error::invalid(problem, Origin::Default))?;
    let rest = found.url.split_once('.').map_or("", |(_, rest)| rest);
    let fips = if fips { "fips-" } else { "" };
    let dual_stack = if dual_stack { "dualstack." } else { "" };
    endpoint.url = format!("https://{bucket}.s3express-{fips}{zone}.{dual_stack}{rest}");
    endpoint.signing_region = found.signing_region;
    Ok(endpoint)
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
