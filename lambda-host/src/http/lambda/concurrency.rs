//! Concurrency: reserved and provisioned, and what an account may have at once.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{empty, json};
use super::call::{Answer, Call};
use super::configuration::iso_8601;
use super::page::{ROWS_MAX, page};
use crate::function::attachments::Provisioned;
use crate::function::version::Version;

pub(super) async fn put(call: &Call<'_>) -> Answer {
    let asked = call.input.number(RESERVED).and_then(|it| u32::try_from(it).ok());
    let reserved = asked.unwrap_or(u32::MAX);
    call.host.reserve_concurrency(call.target()?, Some(reserved)).await?;
    json(StatusCode::OK, &json!({ RESERVED: reserved }))
}

pub(super) fn get(call: &Call<'_>) -> Answer {
    let reserved = call.host.reserved_concurrency(call.target()?)?;
    json(StatusCode::OK, &reserved.map_or_else(|| json!({}), |it| json!({ RESERVED: it })))
}

pub(super) async fn delete(call: &Call<'_>) -> Answer {
    call.host.reserve_concurrency(call.target()?, None).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn provision(call: &Call<'_>) -> Answer {
    let asked = call.input.number("ProvisionedConcurrentExecutions");
    let asked = asked.and_then(|it| u32::try_from(it).ok()).unwrap_or(u32::MAX);
    let provisioned = call.host.provision(call.target()?, Some(asked)).await?;
    let modified_at_ms = provisioned.map_or(0, |it| it.modified_at_ms);
    json(
        StatusCode::ACCEPTED,
        &json!({
            "RequestedProvisionedConcurrentExecutions": asked,
            "AvailableProvisionedConcurrentExecutions": 0,
            "AllocatedProvisionedConcurrentExecutions": 0,
            "Status": "IN_PROGRESS",
            "LastModified": iso_8601(modified_at_ms),
        }),
    )
}

pub(super) async fn get_provisioned(call: &Call<'_>) -> Answer {
    let (provisioned, version) = call.host.provisioned(call.target()?)?;
    json(StatusCode::OK, &told(call, provisioned, version).await?)
}

pub(super) async fn delete_provisioned(call: &Call<'_>) -> Answer {
    call.host.provision(call.target()?, None).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn list_provisioned(call: &Call<'_>) -> Answer {
    let target = call.target()?;
    let mut rows = Vec::new();
    for (qualifier, provisioned, version) in call.host.all_provisioned(target.clone())? {
        let mut row = told(call, provisioned, version).await?;
        row["FunctionArn"] = call.host.arns().qualified(&target.name, &qualifier).into();
        rows.push((qualifier, row));
    }
    json(StatusCode::OK, &page(&call.input, "ProvisionedConcurrencyConfigs", ROWS_MAX, rows))
}

async fn told(
    call: &Call<'_>,
    provisioned: Provisioned,
    version: Version,
) -> Result<Value, super::error::ApiError> {
    let ready = async |version: Version| {
        let mut target = call.target()?;
        target.qualifier = Some(version.to_string());
        Ok::<_, super::error::ApiError>(call.host.ready_sandboxes(target).await?)
    };
    let wanted = provisioned.sandboxes;
    let of_version = ready(version).await?;
    let of_before = match provisioned.before {
        Some(before) => ready(Version::Number(before)).await?,
        None => 0,
    };
    let done = of_version >= wanted && provisioned.before.is_none();
    let ready = of_version.saturating_add(of_before).min(wanted);
    Ok(json!({
        "RequestedProvisionedConcurrentExecutions": wanted,
        "AvailableProvisionedConcurrentExecutions": ready,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "Status": if done { "READY" } else { "IN_PROGRESS" },
        "LastModified": iso_8601(provisioned.modified_at_ms),
    }))
}

pub(super) fn account(call: &Call<'_>) -> Answer {
    let catalog = call.host.catalog();
    let reserved: u64 = catalog
        .page(None, usize::MAX)
        .iter()
        .map(|it| {
            let reserved = it.latest.function.reserved_concurrency.map(u64::from);
            reserved.unwrap_or_else(|| it.attachments.provisioned_together())
        })
        .sum();
    let max = call.host.concurrency_max();
    json(
        StatusCode::OK,
        &json!({
            "AccountLimit": {
                "TotalCodeSize": 80_530_636_800_u64,
                "CodeSizeUnzipped": 262_144_000,
                "CodeSizeZipped": 52_428_800,
                "ConcurrentExecutions": max,
                "UnreservedConcurrentExecutions": u64::from(max).saturating_sub(reserved),
            },
            "AccountUsage": {
                "TotalCodeSize": call.host.code_bytes(),
                "FunctionCount": catalog.len(),
            },
        }),
    )
}

const RESERVED: &str = "ReservedConcurrentExecutions";
