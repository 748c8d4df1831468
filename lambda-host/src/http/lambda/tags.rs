//! Tags of functions and event source mappings.

use http::StatusCode;
use serde_json::json;

use super::answer::{empty, json};
use super::call::{Answer, Call};
use crate::TagChange;
use crate::error::Error;
use crate::function::target::Target;

pub(super) async fn tag(call: &Call<'_>) -> Answer {
    let tags = call.input.text_map("Tags");
    if tags.is_empty() {
        return Err(
            Error::parameter("An error occurred and the request cannot be processed.").into()
        );
    }
    change(call, TagChange::Set(tags)).await
}

pub(super) async fn untag(call: &Call<'_>) -> Answer {
    let keys = call.input.texts("TagKeys").unwrap_or_default();
    change(call, TagChange::Remove(keys)).await
}

async fn change(call: &Call<'_>, change: TagChange) -> Answer {
    match Resource::of(call)? {
        Resource::Function(target) => call.host.change_tags(*target, change).await?,
        Resource::Mapping(id, arn) => {
            let changed = call.host.change_mapping_tags(&id, change).await;
            changed.map_err(|error| missing_mapping(error, &arn))?;
        }
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) fn list(call: &Call<'_>) -> Answer {
    let tags = match Resource::of(call)? {
        Resource::Function(target) => call.host.tags(*target)?,
        Resource::Mapping(id, arn) => {
            let mapping = call.host.mapping(&id);
            mapping.map_err(|error| missing_mapping(error, &arn))?.tags.clone()
        }
    };
    json(StatusCode::OK, &json!({ "Tags": tags }))
}

/// What has tags.
#[derive(Debug)]
enum Resource {
    Function(Box<Target>),
    /// Its identifier and its ARN.
    Mapping(String, String),
}

impl Resource {
    fn of(call: &Call<'_>) -> Result<Self, Error> {
        let arn = call.input.text("Resource").unwrap_or_default();
        let mut parts = arn.splitn(7, ':').skip(5);
        let (kind, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match kind {
            "function" => {
                let target: Target = arn.parse()?;
                if target.qualifier.is_some() {
                    return Err(Error::parameter(
                        "Tags on function aliases and versions are not supported. Please specify a function ARN.",
                    ));
                }
                Ok(Self::Function(Box::new(target)))
            }
            "event-source-mapping" => Ok(Self::Mapping(name.to_owned(), arn.to_owned())),
            "capacity-provider" => {
                Err(Error::not_found(format!("Capacity provider not found: {arn}")))
            }
            _ => Err(Error::no_such_resource()),
        }
    }
}

fn missing_mapping(error: Error, arn: &str) -> Error {
    match error {
        Error::NotFound { .. } => {
            Error::not_found(format!("Event source mapping not found: {arn}"))
        }
        error => error,
    }
}
