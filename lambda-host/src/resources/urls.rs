//! Function URLs: their configuration.

use serde_json::Value;

use crate::catalog::record::Record;
use crate::clock::now_ms;
use crate::error::Error;
use crate::function::attachments::FunctionUrl;
use crate::function::target::Target;
use crate::host::Host;

/// What a function URL is to be. What is `None` stays as it is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UrlChange {
    /// Whether callers must be authenticated.
    pub authenticated: Option<bool>,
    /// Headers for browsers of other origins, as the API has them; `null` for none.
    pub cors: Option<Value>,
    /// Whether answers are streamed.
    pub streamed: Option<bool>,
}

impl Host {
    /// Gives a function or an alias a URL. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such function or alias; [`Error::Conflict`] when it has
    /// one; [`Error::Registry`] when it cannot be kept.
    pub async fn create_url(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        change: UrlChange,
    ) -> Result<FunctionUrl, Error> {
        let target = self.ours(function)?;
        let alias = target.qualifier.clone().unwrap_or_default();
        let arn = self.arns().of_text(target.name.as_str(), target.qualifier.as_deref());
        let create = move |record: &mut Record| {
            if !alias.is_empty() && !record.attachments.aliases.contains_key(&alias) {
                return Err(Error::not_found(NO_FUNCTION));
            }
            if record.attachments.urls.contains_key(&alias) {
                return Err(Error::conflict(format!(
                    "Failed to create function url config for [functionArn = {arn}]. Error message:  \
                     FunctionUrlConfig exists for this Lambda function"
                )));
            }
            let now = now_ms();
            let url = FunctionUrl {
                id: url_id(),
                authenticated: change.authenticated.unwrap_or(true),
                cors: change.cors.filter(|it| !it.is_null()),
                streamed: change.streamed,
                created_at_ms: now,
                modified_at_ms: now,
            };
            record.attachments_mut().urls.insert(alias, url.clone());
            Ok(url)
        };
        let created = self.catalog().amend(target.name, create).await?;
        created.ok_or_else(|| Error::not_found(NO_FUNCTION))
    }

    /// Changes a function URL. The change is made whole even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such function, alias or URL; [`Error::Registry`] when
    /// it cannot be kept.
    pub async fn update_url(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
        change: UrlChange,
    ) -> Result<FunctionUrl, Error> {
        let target = self.ours(function)?;
        let alias = target.qualifier.clone().unwrap_or_default();
        let update = move |record: &mut Record| {
            if !alias.is_empty() && !record.attachments.aliases.contains_key(&alias) {
                return Err(Error::not_found(NO_FUNCTION));
            }
            let Some(mut url) = record.attachments.urls.get(&alias).cloned() else {
                return Err(Error::no_such_resource());
            };
            url.authenticated = change.authenticated.unwrap_or(url.authenticated);
            url.streamed = change.streamed.or(url.streamed);
            if let Some(cors) = change.cors {
                url.cors = Some(cors).filter(|it| !it.is_null());
            }
            url.modified_at_ms = now_ms();
            record.attachments_mut().urls.insert(alias, url.clone());
            Ok(url)
        };
        let updated = self.catalog().amend(target.name, update).await?;
        updated.ok_or_else(|| Error::not_found(NO_FUNCTION))
    }

    /// Removes a function URL.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none; [`Error::Registry`] when the removal cannot be kept.
    pub async fn remove_url(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<(), Error> {
        let target = self.ours(function)?;
        let alias = target.qualifier.clone().unwrap_or_default();
        let remove = move |record: &mut Record| {
            if record.attachments.urls.contains_key(&alias) {
                record.attachments_mut().urls.remove(&alias);
                return Ok(());
            }
            Err(Error::no_such_resource())
        };
        let removed = self.catalog().amend(target.name, remove).await?;
        removed.ok_or_else(Error::no_such_resource)
    }

    /// Returns the URL of a function or an alias.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none.
    pub fn url(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<FunctionUrl, Error> {
        let target = self.ours(function)?;
        let record = self.catalog().record(&target.name);
        let alias = target.qualifier.unwrap_or_default();
        let url = record.and_then(|it| it.attachments.urls.get(&alias).cloned());
        url.ok_or_else(Error::no_such_resource)
    }

    /// Returns the URLs of a function and its aliases, ordered by alias; that of the function has
    /// none.
    ///
    /// # Errors
    ///
    /// [`Error::FunctionNotFound`].
    pub fn urls(
        &self,
        function: impl TryInto<Target, Error = impl Into<Error>>,
    ) -> Result<Vec<(Option<String>, FunctionUrl)>, Error> {
        let record = self.record(&self.latest(function)?)?;
        let alias = |alias: &String| Some(alias.clone()).filter(|it| !it.is_empty());
        Ok(record.attachments.urls.iter().map(|(name, url)| (alias(name), url.clone())).collect())
    }
}

/// Returns a label for a host name that no other URL has.
fn url_id() -> String {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    let (higher, lower) = uuid::Uuid::new_v4().as_u64_pair();
    let digits = [high, low, higher, lower].into_iter().flat_map(|it| it.to_le_bytes());
    digits.map(|byte| char::from(DIGITS[usize::from(byte) % DIGITS.len()])).collect()
}

const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const NO_FUNCTION: &str = "Function does not exist";
