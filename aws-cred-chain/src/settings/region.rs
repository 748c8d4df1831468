//! The configured region: option, variables, profile.

use crate::error::Error;
use crate::settings::run::{Run, Setting};
use crate::trace::Origin;

pub(crate) async fn configured(run: &mut Run<'_>) -> Result<Option<Setting>, Error> {
    let found = if let Some(region) = &run.options.region {
        Some((region.clone(), Origin::Option("region")))
    } else if let Some(region) = run.context.var("AWS_REGION")? {
        Some((region, Origin::Variable("AWS_REGION".into())))
    } else {
        run.setting("AWS_DEFAULT_REGION", "region").await?
    };
    match found {
        Some((region, origin)) if !is_label(&region) => {
            Err(Error::invalid(format!("`{region}` is no region"), origin))
        }
        found => Ok(found),
    }
}

/// Returns whether a text may be a region. It becomes part of a host name, so it must be one label:
/// no dot, slash, at sign or colon.
pub(crate) fn is_label(region: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=63).contains(&region.len())
        && region.chars().all(allowed)
        && !region.starts_with('-')
        && !region.ends_with('-')
}
