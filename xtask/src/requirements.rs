//! Checks that each dependency is required in the version of `Cargo.lock` at least, so that no user
//! gets an older version than the one that is tested.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Reads `cargo metadata`, and prints each requirement that allows an older version. Returns
/// whether there is none.
pub(crate) fn check(root: &Path) -> bool {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["metadata", "--format-version", "1", "--all-features"]);
    let output = match cargo.output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            eprintln!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
            return false;
        }
        Err(error) => {
            eprintln!("cargo metadata: {error}");
            return false;
        }
    };
    let metadata = match serde_json::from_slice(&output.stdout) {
        Ok(metadata) => metadata,
        Err(error) => {
            eprintln!("cargo metadata: {error}");
            return false;
        }
    };
    let found = older(&metadata);
    for line in &found {
        println!("{line}");
    }
    found.is_empty()
}

/// Returns a line for each requirement of a package of the workspace that allows a version older
/// than the one in use.
fn older(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions: BTreeMap<String, (String, String)> = list(&metadata["packages"])
        .iter()
        .map(|it| (text(&it["id"]), (text(&it["name"]), text(&it["version"]))))
        .collect();
    let used: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), list(&node["dependencies"]).iter().map(text).collect()))
        .collect();
    let members: Vec<String> = list(&metadata["workspace_members"]).iter().map(text).collect();
    let mut lines = Vec::new();
    for package in list(&metadata["packages"]) {
        let id = text(&package["id"]);
        if !members.contains(&id) {
            continue;
        }
        for dependency in list(&package["dependencies"]) {
            let (name, required) = (text(&dependency["name"]), text(&dependency["req"]));
            let in_use: Vec<&str> = (used.get(&id).into_iter().flatten())
                .filter_map(|id| versions.get(id))
                .filter(|(of, _)| *of == name)
                // Without the build metadata, which no requirement names.
                .map(|(_, version)| version.split('+').next().unwrap_or_default())
                .collect();
            let least = required.trim_start_matches(['^', '=']);
            let ours = dependency["path"].is_string();
            if !ours && !in_use.is_empty() && !in_use.contains(&least) {
                let package = text(&package["name"]);
                lines.push(format!(
                    "{package} requires {name} {required}, and {} is tested",
                    in_use.join(" or ")
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_that_allows_an_older_version_is_found() {
        let of = |required: &str| {
            older(&serde_json::json!({
                "workspace_members": ["a"],
                "packages": [
                    {"id": "a", "name": "a", "version": "0.1.0", "dependencies": [
                        {"name": "b", "req": required, "path": null},
                        {"name": "unused", "req": "^1", "path": null},
                        {"name": "own", "req": "^0.1.0", "path": "/own"},
                    ]},
                    {"id": "b 1.2.3", "name": "b", "version": "1.2.3+of", "dependencies": []},
                    {"id": "own", "name": "own", "version": "0.1.1", "dependencies": []},
                ],
                "resolve": {"nodes": [{"id": "a", "dependencies": ["b 1.2.3", "own"]}]},
            }))
        };
        assert_eq!(of("^1.2.3"), Vec::<String>::new());
        assert_eq!(of("^1.2"), ["a requires b ^1.2, and 1.2.3 is tested"]);
    }
}
