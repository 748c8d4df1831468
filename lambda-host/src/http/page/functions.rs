//! Functions with their versions and aliases, for the page; and what its user may do with them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Refused;
use super::query::Query;
use crate::catalog::record::Record;
use crate::function::FunctionState;
use crate::function::config::FunctionConfig;
use crate::function::name::FunctionName;
use crate::function::version::Version;
use crate::host::Host;
use crate::invocation::Request;

/// Returns functions by name after `after`, whose names contain `query`.
pub(super) fn page(host: &Host, query: &Query) -> Value {
    let count = query.count(50, 200);
    let wanted = query.text("query").unwrap_or_default().to_ascii_lowercase();
    let mut after = query.text("after").map(str::to_owned);
    let (mut records, mut more) = (Vec::new(), false);
    'pages: loop {
        let page = host.catalog().page(after.as_deref(), PAGE);
        let Some(last) = page.last() else { break };
        after = Some(name(last).to_string());
        for record in page {
            if !name(&record).as_str().to_ascii_lowercase().contains(&wanted) {
                continue;
            }
            if records.len() == count {
                more = true;
                break 'pages;
            }
            records.push(record);
        }
    }
    let names: Vec<_> = records.iter().map(|it| name(it).clone()).collect();
    let sandboxes = sandboxes(host, &names);
    let registry = host.observer().registry();
    let functions: Vec<_> = records
        .iter()
        .zip(sandboxes)
        .map(|(record, sandboxes)| {
            let function = &record.latest.function;
            let config = &function.config;
            json!({
                "name": config.name,
                "runtime": runtime(config),
                "memory_mb": config.memory_mb,
                "state": state(&function.state),
                "versions": record.versions.len(),
                "aliases": record.attachments.aliases.keys().take(SHOWN_MAX).collect::<Vec<_>>(),
                "counts": registry.totals(&host.series(config.name.as_str())),
                "sandboxes": sandboxes,
            })
        })
        .collect();
    let next = names.last().filter(|_| more);
    json!({ "functions": functions, "next": next, "total": host.functions_count() })
}

/// Returns a function's runtime, or that it is a container image.
fn runtime(config: &FunctionConfig) -> &str {
    if config.image.is_some() { "image" } else { &config.runtime }
}

/// Returns one function with its versions and aliases.
pub(super) fn one(host: &Host, name: &str) -> Result<Value, Refused> {
    let target = host.ours(name)?;
    let record = host.record(&target)?;
    let function = &record.latest.function;
    let config = &function.config;
    let reason = match &function.state {
        FunctionState::Failed { reason } => Some(reason),
        FunctionState::Active => None,
    };
    let versions = record.versions.later(0).rev().take(SHOWN_MAX).map(|held| {
        let it = &held.function;
        let number = match it.version {
            Version::Number(number) => Some(number),
            Version::Latest => None,
        };
        json!({ "version": number, "memory_mb": it.config.memory_mb, "runtime": runtime(&it.config),
            "modified_ms": it.modified_at_ms, "provisioned": it.provisioned_concurrency })
    });
    let aliases = record.attachments.aliases.iter().take(SHOWN_MAX).map(|(name, alias)| {
        json!({ "name": name, "version": alias.version, "second": alias.second,
            "description": alias.description })
    });
    let names = [config.name.clone()];
    Ok(json!({
        "name": config.name,
        "arn": host.arns().function(&config.name),
        "description": config.description,
        "runtime": runtime(config),
        "handler": config.handler,
        "memory_mb": config.memory_mb,
        "timeout_ms": u64::try_from(config.timeout.as_millis()).unwrap_or(u64::MAX),
        "state": state(&function.state),
        "reason": reason,
        "modified_ms": function.modified_at_ms,
        "reserved_concurrency": function.reserved_concurrency,
        "versions": versions.collect::<Vec<_>>(),
        "versions_total": record.versions.len(),
        "aliases": aliases.collect::<Vec<_>>(),
        "urls": record.attachments.urls.len(),
        "counts": host.observer().registry().totals(&host.series(config.name.as_str())),
        "sandboxes": sandboxes(host, &names).pop(),
    }))
}

/// Invokes a function with an event, JSON.
pub(super) async fn invoke(host: &Host, name: &str, event: Bytes) -> Result<Value, Refused> {
    let event = if event.is_empty() { Bytes::from_static(b"{}") } else { event };
    let answer = host.invoke(name, Request::new(event)).await?;
    let shown = &answer.payload[..answer.payload.len().min(PAYLOAD_SHOWN)];
    Ok(json!({
        "request_id": answer.request_id,
        "function_error": answer.function_error,
        "payload": String::from_utf8_lossy(shown),
        "payload_bytes": answer.payload.len(),
        "duration_ms": answer.report.duration.as_secs_f64() * 1000.0,
    }))
}

/// Deletes a function with all that belongs to it.
pub(super) async fn delete(host: &Host, name: &str) -> Result<Value, Refused> {
    host.remove(name).await?;
    Ok(json!({ "deleted": name }))
}

fn name(record: &Record) -> &FunctionName {
    &record.latest.function.config.name
}

fn state(state: &FunctionState) -> &'static str {
    match state {
        FunctionState::Active => "active",
        FunctionState::Failed { .. } => "failed",
    }
}

/// Returns how many sandboxes of each function are in which state. The names are in order.
fn sandboxes(host: &Host, names: &[FunctionName]) -> Vec<BTreeMap<&'static str, u64>> {
    let mut counts = vec![BTreeMap::new(); names.len()];
    for sandbox in host.observer().activity().sandboxes.by_id.values() {
        let its = names.binary_search(&sandbox.key.name);
        if let (Ok(at), true) = (its, sandbox.key.account == host.account_index()) {
            *counts[at].entry(sandbox.state.name()).or_default() += 1;
        }
    }
    counts
}

/// How many functions are looked at under one lock.
const PAGE: usize = 512;
/// Versions and aliases of one function that are shown.
const SHOWN_MAX: usize = 100;
const PAYLOAD_SHOWN: usize = 64 << 10;
