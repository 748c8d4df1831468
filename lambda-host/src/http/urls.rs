//! Function URLs: which request is to which of them, and whether it may pass.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use http::request::Parts;
use lambda_gateway::{Api, Cors};
use serde_json::Value;

use crate::catalog::record::Record;
use crate::function::account::AccountIndex;
use crate::function::attachments::FunctionUrl;
use crate::function::name::FunctionName;
use crate::function::policy::{Access, Policy};
use crate::host::Host;

/// Finds function URLs by host name, `ID.lambda-url.REGION.…`, or below a path.
#[derive(Debug, Default)]
pub(super) struct Urls {
    /// The path below which `ID/…` is a URL, such as `/urls`; empty for none.
    path: String,
    /// Whether the server speaks TLS.
    pub(super) is_secure: bool,
    /// The function and alias that had a URL when it was last asked for.
    owners: Mutex<BTreeMap<String, Owner>>,
}

/// Whose a URL is: the account, the function, the alias or an empty text.
type Owner = (AccountIndex, FunctionName, String);

/// A function URL.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) api: Api,
    /// The host as the account sees it whose function it is.
    pub(super) host: Host,
    pub(super) entry: Entry,
}

/// Who may pass a function URL.
#[derive(Debug)]
pub(super) enum Entry {
    /// Everybody.
    Open,
    /// Nobody.
    Closed,
    /// Callers who sign, of the function's own account or of one that its policy allows.
    Signed(Policy),
}

impl Urls {
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.trim_end_matches('/').to_owned(), ..Self::default() }
    }

    /// Returns the address of a URL that the API announces.
    pub(super) fn announced(&self, id: &str, region: &str, headers: &HeaderMap) -> String {
        let host = headers.get("host").and_then(|it| it.to_str().ok());
        match host.filter(|_| !self.path.is_empty()) {
            Some(host) => {
                let scheme = if self.is_secure { "https" } else { "http" };
                format!("{scheme}://{host}{}/{id}/", self.path)
            }
            None => format!("https://{id}.lambda-url.{region}.on.aws/"),
        }
    }

    /// Returns the identifier that a request names, and the path below it.
    pub(super) fn id(&self, request: &Parts) -> Option<(String, String)> {
        let host = request.headers.get("host").and_then(|it| it.to_str().ok());
        let host = request.uri.host().or(host).unwrap_or_default();
        let path = request.uri.path();
        let mut labels = host.split('.');
        if let (Some(id), Some("lambda-url")) = (labels.next(), labels.next()) {
            return Some((id.to_ascii_lowercase(), path.to_owned()));
        }
        let below = path.strip_prefix(&self.path).filter(|_| !self.path.is_empty())?;
        let below = below.strip_prefix('/')?;
        let (id, rest) = below.split_once('/').unwrap_or((below, ""));
        Some((id.to_owned(), format!("/{rest}")))
    }

    /// Returns the URL of an identifier.
    pub(super) fn door(&self, host: &Host, id: &str) -> Option<Door> {
        let (account, name, alias) = self.owner(host, id)?;
        let host = host.clone().with_account(account)?;
        let record = host.catalog().record(&name)?;
        let url = record.attachments.urls.get(&alias)?;
        let qualifier = if alias.is_empty() { String::new() } else { format!(":{alias}") };
        let mut api = Api::function_url(id, &format!("{name}{qualifier}")).ok()?;
        api.region = host.arns().region().to_owned();
        api.streamed = url.streamed.unwrap_or(false);
        api.cors = url.cors.as_ref().and_then(cors);
        let policy = record.attachments.policies.get(&alias);
        let entry = match url.authenticated {
            true => Entry::Signed(policy.cloned().unwrap_or_default()),
            false if policy.is_some_and(allows_everybody) => Entry::Open,
            false => Entry::Closed,
        };
        Some(Door { api, host, entry })
    }

    fn owner(&self, host: &Host, id: &str) -> Option<Owner> {
        let known = self.owners().get(id).cloned();
        if let Some((account, name, alias)) = known {
            let host = host.clone().with_account(account);
            let record = host.and_then(|it| it.catalog().record(&name));
            let url = record.as_deref().and_then(|it| it.attachments.urls.get(&alias));
            if url.is_some_and(|it| it.id == id) {
                return Some((account, name, alias));
            }
            self.owners().remove(id);
        }
        let mut accounts = host.accounts();
        let found = accounts.find_map(|it| {
            let (name, alias) = search(&it, id)?;
            Some((it.account_index(), name, alias))
        })?;
        let mut owners = self.owners();
        if owners.len() >= OWNERS_MAX {
            owners.clear();
        }
        owners.insert(id.to_owned(), found.clone());
        Some(found)
    }

    fn owners(&self) -> MutexGuard<'_, BTreeMap<String, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn search(host: &Host, id: &str) -> Option<(FunctionName, String)> {
    let mut after: Option<String> = None;
    loop {
        let page = host.catalog().page(after.as_deref(), PAGE);
        let last = page.last()?;
        after = Some(last.latest.function.config.name.to_string());
        let own = |record: &Record| {
            let mut urls = record.attachments.urls.iter();
            let alias = urls.find(|(_, url): &(_, &FunctionUrl)| url.id == id)?.0.clone();
            Some((record.latest.function.config.name.clone(), alias))
        };
        if let Some(found) = page.iter().find_map(|it| own(it)) {
            return Some(found);
        }
    }
}

/// Tells whether a policy lets everybody invoke by a URL without authentication.
fn allows_everybody(policy: &Policy) -> bool {
    policy.allows(&Access { account: None, action: INVOKE, url: Some("NONE") })
}

/// Tells whether a policy lets the holders of an account's keys invoke by a URL that authenticates.
#[cfg(feature = "keys")]
pub(super) fn allows_account(policy: &Policy, account: &str) -> bool {
    policy.allows(&Access { account: Some(account), action: INVOKE, url: Some("AWS_IAM") })
}

fn cors(value: &Value) -> Option<Cors> {
    serde_json::from_value(value.clone())
        .inspect_err(|error| tracing::warn!(%error, "the CORS settings of a function URL"))
        .ok()
}

const INVOKE: &str = "lambda:InvokeFunctionUrl";
/// How many owners are remembered.
const OWNERS_MAX: usize = 10_000;
/// How many functions are looked at under one lock.
const PAGE: usize = 512;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::function::policy::Statement;

    fn request(host: &str, path: &str) -> Parts {
        http::Request::get(path).header("host", host).body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_url_is_named_by_host_or_by_path() {
        let urls = Urls::new("/urls/");
        let check = |host: &str, path: &str, expected: Option<(&str, &str)>| {
            let found = urls.id(&request(host, path));
            let found = found.as_ref().map(|(id, path)| (id.as_str(), path.as_str()));
            assert_eq!(found, expected, "{host}{path}");
        };
        check("Abc.lambda-url.us-east-1.localhost:3000", "/a%20b", Some(("abc", "/a%20b")));
        check("abc.lambda-url.us-east-1.on.aws", "/", Some(("abc", "/")));
        check("localhost", "/urls/abc/x/y", Some(("abc", "/x/y")));
        check("localhost", "/urls/abc", Some(("abc", "/")));
        check("localhost", "/urlsabc/x", None);
        check("localhost", "/2015-03-31/functions", None);
        assert!(Urls::new("").id(&request("localhost", "/urls/abc")).is_none());
    }

    #[test]
    fn only_a_policy_for_everybody_opens_a_url() {
        let check = |statements: &[Value], expected: bool| {
            let mut policy = Policy::default();
            for (at, json) in statements.iter().enumerate() {
                policy.statements.push(Statement { id: at.to_string(), json: json.clone() });
            }
            assert_eq!(allows_everybody(&policy), expected, "{statements:?}");
        };
        let allow = json!({ "Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunctionUrl",
            "Condition": { "StringEquals": { "lambda:FunctionUrlAuthType": "NONE" } } });
        let with = |name: &str, value: Value| {
            let mut changed = allow.clone();
            changed[name] = value;
            changed
        };
        check(&[], false);
        check(std::slice::from_ref(&allow), true);
        check(&[with("Principal", json!({ "AWS": "arn:aws:iam::1:root" }))], false);
        check(&[with("Action", json!("lambda:InvokeFunction"))], false);
        check(&[with("Condition", json!({ "StringEquals": { "aws:SourceAccount": "1" } }))], false);
        check(&[allow.clone(), with("Effect", json!("Deny"))], false);
    }
}
