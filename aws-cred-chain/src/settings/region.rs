//! The region's chain: option, `AWS_REGION`, `AWS_DEFAULT_REGION`, profile, metadata service.

use crate::error::Error;
use crate::settings::options::Options;
use crate::settings::run::{Run, Setting};
use crate::source::imds;
use crate::trace::Origin;
use crate::world::Context;

/// Finds the region and says where it stands; `None` where nothing names one.
///
/// With `ask_metadata` the metadata service is asked last.
///
/// # Errors
///
/// [`Error::Invalid`] for files that cannot be read and a region that is not a host label. A metadata
/// service that does not answer is `None`.
pub async fn region(
    context: &Context,
    options: &Options,
    ask_metadata: bool,
) -> Result<Option<(String, Origin)>, Error> {
    let mut run = Run::new(context, options);
    let found = configured(&mut run).await?;
    if found.is_some() || !ask_metadata {
        return Ok(found);
    }
    let region = imds::region(&mut run).await.ok().flatten();
    Ok(region.filter(|region| is_label(region)).map(|region| (region, Origin::Metadata)))
}

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

/// A region becomes part of a host name, so it must be a label: no dot, slash, at or colon.
fn is_label(region: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=63).contains(&region.len())
        && region.chars().all(allowed)
        && !region.starts_with('-')
        && !region.ends_with('-')
}
