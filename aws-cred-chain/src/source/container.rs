//! The credentials endpoint of ECS tasks, EKS pods and other programs with the same protocol.

use std::net::IpAddr;

use bytes::Bytes;

use super::json;
use super::refusal::Refusal;
use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::settings::run::Run;
use crate::source::call::{Call, request};
use crate::trace::Origin;
use crate::world::Context;

const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
const TOKEN_BYTES_MAX: u64 = 1 << 16;

/// Returns the endpoint that the environment configures, or `None`. The variable with the relative
/// URI takes precedence over the one with the full URI.
///
/// # Errors
///
/// [`Error::Invalid`] if the value is no URL, or plain HTTP to a host that is neither this machine
/// nor one of the addresses of ECS and EKS.
pub fn endpoint(context: &Context) -> Result<Option<(String, Origin)>, Error> {
    if let Some(relative) = context.var(RELATIVE)? {
        let origin = Origin::Variable(RELATIVE.into());
        let url = format!("http://169.254.170.2{relative}");
        let parsed = url.parse::<http::Uri>().ok();
        if !relative.starts_with('/') || parsed.is_none() {
            return Err(Error::invalid("relative URI is not a path", origin));
        }
        return Ok(Some((url, origin)));
    }
    let Some(url) = context.var(FULL)? else {
        return Ok(None);
    };
    let origin = Origin::Variable(FULL.into());
    let uri: http::Uri =
        url.parse().map_err(|_| Error::invalid("full URI is not a URL", origin.clone()))?;
    let host = uri.host().unwrap_or_default().to_owned();
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(Some((url, origin))),
        Some("http") if is_allowed(&host) => Ok(Some((url, origin))),
        Some("http") => {
            let problem = format!(
                "http to `{host}` is not allowed: use https, a loopback address, or an address of \
                 ECS or EKS"
            );
            Err(Error::invalid(problem, origin))
        }
        _ => Err(Error::invalid("full URI is neither http nor https", origin)),
    }
}

fn is_allowed(host: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
    bare.parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback() || addresses.iter().any(|a| a.parse::<IpAddr>() == Ok(ip)))
}

/// Returns an endpoint without its query and user information, which may be secrets.
pub(crate) fn shown(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

/// Requests credentials from the endpoint.
pub(crate) async fn load(run: &mut Run<'_>, url: &str) -> Result<Credentials, Error> {
    let token = token(run).await?;
    let mut headers = vec![("accept", "application/json")];
    if let Some(token) = &token {
        headers.push(("authorization", token));
    }
    let call = Call::new("container credentials", run);
    let response = call.send(run, || request("GET", url, &headers, Bytes::new())).await?;
    if !response.status().is_success() {
        return Err(Refusal::of(&response).error("container endpoint", "credentials", None));
    }
    let map = json::object(call.name, response.body())?;
    let credentials = json::credentials(call.name, &map, "Token", Source::Container)?;
    json::not_expired(call.name, &credentials, run.context.clock.now())?;
    Ok(credentials)
}

/// Returns the value of the authorization header. The token file takes precedence over the
/// variable.
async fn token(run: &Run<'_>) -> Result<Option<String>, Error> {
    let (token, origin) = if let Some(path) = run.context.var(TOKEN_FILE)? {
        let origin = Origin::Variable(TOKEN_FILE.into());
        let file = run.context.expand(&path);
        let data = run.context.files.read(&file, TOKEN_BYTES_MAX).await.map_err(|error| {
            Error::invalid(format!("cannot read token file {path}: {error}"), origin.clone())
        })?;
        let token = String::from_utf8(data.bytes)
            .map_err(|_| Error::invalid("token file is not UTF-8", origin.clone()))?;
        (token, origin)
    } else if let Some(token) = run.context.var(TOKEN)? {
        (token, Origin::Variable(TOKEN.into()))
    } else {
        return Ok(None);
    };
    let token = token.trim_end_matches(['\r', '\n']);
    if http::HeaderValue::from_str(token).is_err() {
        return Err(Error::invalid("token is not fit for a header", origin));
    }
    Ok(Some(token.to_owned()))
}
