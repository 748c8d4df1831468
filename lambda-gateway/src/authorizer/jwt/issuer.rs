//! Issuers of tokens: their keys are fetched when they are needed, and kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::KeySet;
use super::token::Token;
use super::{Fault, JwtAuthorizer, claims};
use crate::api::Api;
use crate::documents::{Document, Documents};

/// The issuers of a gateway's authorizers, by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Issuers(BTreeMap<String, Issuer>);

impl Issuers {
    /// Returns the issuers of these front doors, without keys.
    pub(crate) fn of(apis: &[Api]) -> Self {
        let authorizers = apis.iter().flat_map(|it| it.jwt_authorizers.values());
        Self(authorizers.map(|it| (it.issuer.clone(), Issuer::default())).collect())
    }

    /// Checks a token. Returns what the function sees of it: `claims` and `scopes`.
    pub(crate) async fn check(
        &self,
        authorizer: &JwtAuthorizer,
        scopes: &[String],
        text: &str,
        documents: &dyn Documents,
        unix_ms: u64,
    ) -> Result<Map<String, Value>, Fault> {
        let token = Token::parse(text)?;
        // Before the keys are fetched: a token of another issuer must cause no work.
        if token.claims.get("iss").and_then(Value::as_str) != Some(&authorizer.issuer) {
            return Err(Fault::Issuer);
        }
        let issuer = self.0.get(&authorizer.issuer).ok_or(Fault::Discovery)?;
        let keys = issuer.keys(&authorizer.issuer, &token.key_id, documents, unix_ms).await?;
        keys.find(&token.key_id).ok_or(Fault::UnknownKey)?.check(&token)?;
        claims::check(&token.claims, authorizer, unix_ms)?;
        claims::check_scopes(&token.claims, scopes)?;
        Ok(claims::shown(&token.claims, scopes))
    }
}

/// The keys of one issuer.
#[derive(Debug, Default)]
struct Issuer {
    kept: Mutex<Kept>,
    /// Held by whoever fetches, so that requests that come together fetch once.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    keys: Option<(Arc<KeySet>, u64)>,
    /// The last attempt: its time, and its error.
    tried: Option<(u64, Result<(), Fault>)>,
}

impl Kept {
    /// Returns the kept key set if it is younger than `age_ms` and has a key called `name`.
    fn known(&self, name: &str, now_ms: u64, age_ms: u64) -> Option<Arc<KeySet>> {
        let (keys, fetched_ms) = self.keys.as_ref()?;
        let usable = now_ms.saturating_sub(*fetched_ms) < age_ms && keys.find(name).is_some();
        usable.then(|| Arc::clone(keys))
    }

    /// Returns the keys if they suffice, or why there are none; `None` if they must be fetched.
    fn find(&self, name: &str, now_ms: u64) -> Option<Result<Arc<KeySet>, Fault>> {
        if let Some(fresh) = self.known(name, now_ms, FRESH_MS) {
            return Some(Ok(fresh));
        }
        let (_, outcome) = self.tried.filter(|it| now_ms.saturating_sub(it.0) < PAUSE_MS)?;
        let known = self.known(name, now_ms, KEPT_MS);
        Some(known.ok_or_else(|| outcome.err().unwrap_or(Fault::UnknownKey)))
    }
}

impl Issuer {
    /// Returns keys of which one has this name. Fetches them if they are not known, are an hour
    /// old, or lack the name, at most once in ten seconds.
    async fn keys(
        &self,
        issuer: &str,
        name: &str,
        documents: &dyn Documents,
        now_ms: u64,
    ) -> Result<Arc<KeySet>, Fault> {
        let found = self.kept().find(name, now_ms);
        if let Some(found) = found {
            return found;
        }
        let _fetching = match self.fetching.try_lock() {
            Ok(fetching) => fetching,
            Err(_) => {
                let known = self.kept().known(name, now_ms, KEPT_MS);
                if let Some(known) = known {
                    return Ok(known);
                }
                self.fetching.lock().await
            }
        };
        let found = self.kept().find(name, now_ms);
        if let Some(found) = found {
            return found;
        }
        let fetched = fetch(issuer, documents).await;
        let mut kept = self.kept();
        kept.tried = Some((now_ms, fetched.as_ref().map(|_| ()).map_err(|it| *it)));
        if let Ok(keys) = fetched {
            kept.keys = Some((Arc::new(keys), now_ms));
        }
        kept.find(name, now_ms).unwrap_or(Err(Fault::Keys))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Fetches an issuer's keys by its discovery document.
async fn fetch(issuer: &str, documents: &dyn Documents) -> Result<KeySet, Fault> {
    let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let discovery = document(documents, address).await.ok_or(Fault::Discovery)?;
    let discovery: Discovery = serde_json::from_slice(&discovery).map_err(|_| Fault::Discovery)?;
    // OpenID Connect Discovery 1.0, section 4.3. Keys of a secure issuer come securely.
    let secure = discovery.jwks_uri.starts_with("https://");
    if discovery.issuer != issuer || issuer.starts_with("https://") && !secure {
        return Err(Fault::Discovery);
    }
    let keys = document(documents, discovery.jwks_uri).await.ok_or(Fault::Keys)?;
    KeySet::parse(&keys).ok_or(Fault::Keys)
}

async fn document(documents: &dyn Documents, url: String) -> Option<bytes::Bytes> {
    let document = Document { url, timeout: FETCH_TIMEOUT, bytes_max: DOCUMENT_BYTES_MAX };
    // An implementation that reads too much must not make us parse it.
    documents.fetch(document).await.ok().filter(|it| it.len() <= DOCUMENT_BYTES_MAX)
}

/// How long keys are used without being asked for again, in milliseconds: an hour.
const FRESH_MS: u64 = 3_600_000;
/// How long keys are used if they cannot be fetched again, in milliseconds: two hours, as at AWS.
const KEPT_MS: u64 = 7_200_000;
/// The time between two attempts, in milliseconds. A new key passes after this time at the latest;
/// tokens with names of keys that are not there cause no more requests to the issuer.
const PAUSE_MS: u64 = 10_000;
const FETCH_TIMEOUT: Duration = Duration::from_millis(1500);
const DOCUMENT_BYTES_MAX: usize = 256 << 10;
