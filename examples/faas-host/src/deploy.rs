//! `deploy`: the functions of a SAM or CloudFormation template, straight to a host.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::client::{Client, Error};
use crate::say::say;
use crate::template::{self, Code, Planned};

/// What the command line asks for.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The template: YAML or JSON. Paths in it are relative to its folder.
    #[arg(value_name = "TEMPLATE", default_value = "template.yaml")]
    template: PathBuf,
    /// The host, which must serve without keys.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3000")]
    to: SocketAddr,
    /// The value of a parameter of the template.
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
}

/// Deploys what the template has, and prints what it left out.
pub(crate) async fn run(options: Options) -> Result<(), Error> {
    let file = &options.template;
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("template {}: {error}", file.display()))?;
    let pseudo = [
        ("AWS::Region", "us-east-1"),
        ("AWS::AccountId", "123456789012"),
        ("AWS::Partition", "aws"),
    ];
    let mut parameters: BTreeMap<String, String> =
        pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    for parameter in &options.parameters {
        let pair =
            parameter.split_once('=').ok_or_else(|| format!("{parameter}: no NAME=VALUE"))?;
        parameters.insert(pair.0.to_owned(), pair.1.to_owned());
    }
    let plan = template::plan(&text, &parameters)
        .map_err(|error| format!("template {}: {error}", file.display()))?;
    let (client, folder) =
        (Client::new(options.to), file.parent().unwrap_or_else(|| Path::new("")));
    for function in &plan.functions {
        deploy(&client, folder, function).await?;
    }
    for left_out in &plan.left_out {
        say!("left out    {left_out}");
    }
    Ok(())
}

async fn deploy(client: &Client, folder: &Path, function: &Planned) -> Result<(), Error> {
    let name = function.settings["FunctionName"].as_str().unwrap_or_default();
    let code = match &function.code {
        Code::Image(uri) => json!({ "ImageUri": uri }),
        Code::Inline(text) => {
            let runtime = function.settings.get("Runtime").and_then(Value::as_str);
            let python = runtime.is_some_and(|it| it.starts_with("python"));
            let name = if python { "index.py" } else { "index.js" };
            zip_file(&crate::client::archive(name, text.as_bytes())?)
        }
        Code::Path(path) => zip_file(&packed(&folder.join(path))?),
    };
    let there = client.call(Method::GET, &format!("/{name}"), &Value::Null).await?.0.is_success();
    let word = if there { "updated" } else { "created" };
    if there {
        let settings = Value::Object(function.settings.clone());
        client
            .expect(Method::PUT, &format!("/{name}/configuration"), &without_create(settings))
            .await?;
        settled(client, name).await?;
        client.expect(Method::PUT, &format!("/{name}/code"), &code).await?;
    } else {
        let mut body = Value::Object(function.settings.clone());
        body["Code"] = code;
        client.expect(Method::POST, "", &body).await?;
    }
    say!("{word:<11} {name}");
    let Some(alias) = &function.alias else { return Ok(()) };
    settled(client, name).await?;
    let published = client.expect(Method::POST, &format!("/{name}/versions"), &json!({})).await?;
    let version = json!({ "Name": alias, "FunctionVersion": published["Version"] });
    let path = format!("/{name}/aliases/{alias}");
    if client.call(Method::GET, &path, &Value::Null).await?.0.is_success() {
        client.expect(Method::PUT, &path, &version).await?;
    } else {
        client.expect(Method::POST, &format!("/{name}/aliases"), &version).await?;
    }
    say!(
        "alias       {name}:{alias} is version {}",
        published["Version"].as_str().unwrap_or_default()
    );
    Ok(())
}

fn zip_file(zip: &[u8]) -> Value {
    json!({ "ZipFile": BASE64.encode(zip) })
}

/// Waits until no change of a function is under way: another one is refused until then.
async fn settled(client: &Client, name: &str) -> Result<(), Error> {
    let path = format!("/{name}/configuration");
    for _ in 0..LOOKS_MAX {
        let told = client.expect(Method::GET, &path, &Value::Null).await?;
        if told["State"] != "Pending" && told["LastUpdateStatus"] != "InProgress" {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(format!("function {name}: a change is under way for too long").into())
}

/// How often and how many times a function is looked at that is being changed: a minute together.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);
const LOOKS_MAX: u32 = 600;

/// Takes from settings what a change of a function cannot have.
fn without_create(mut settings: Value) -> Value {
    if let Some(members) = settings.as_object_mut() {
        for name in ["FunctionName", "Tags", "Architectures", "PackageType"] {
            members.remove(name);
        }
    }
    settings
}

/// Reads an archive, or packs a folder.
fn packed(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error: std::io::Error| format!("code {}: {error}", path.display());
    if !path.is_dir() {
        return Ok(std::fs::read(path).map_err(failed)?);
    }
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let inside = entry.path();
                let name = inside.strip_prefix(path)?.to_string_lossy().into_owned();
                zip.start_file(name, options)?;
                zip.write_all(&std::fs::read(&inside).map_err(failed)?)?;
            }
        }
    }
    Ok(zip.finish()?.into_inner())
}

impl Client {
    /// Calls an operation that must succeed; returns its answer.
    async fn expect(&self, method: Method, path: &str, body: &Value) -> Result<Value, Error> {
        let told = format!("{method} functions{path}");
        let (status, answer) = self.call(method, path, body).await?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&answer).unwrap_or_default());
        }
        Err(format!("{told}: {status}: {}", String::from_utf8_lossy(&answer)).into())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(http::StatusCode, Bytes), Error> {
        use http_body_util::BodyExt as _;
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let response = self.send(method, path, body).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
