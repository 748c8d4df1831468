//! Credentials from a Cognito identity pool, for guests and for users of an identity provider.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::call::{Call, request};
use super::json as answer;
use super::refusal::Refusal;
use crate::credentials::{Credentials, ProvideCredentials, Secret, Source};
use crate::error::Error;
use crate::settings::endpoint;
use crate::settings::options::Options;
use crate::settings::run::Run;
use crate::world::{BoxFuture, Context};

/// An identity of a Cognito identity pool (`GetId`, then `GetCredentialsForIdentity`).
#[derive(Clone, Debug)]
pub struct CognitoIdentity {
    pool_id: String,
    logins: BTreeMap<String, Secret>,
    role_arn: Option<String>,
    context: Context,
    options: Options,
}

impl CognitoIdentity {
    /// Returns a provider of guest credentials from the pool `REGION:GUID`.
    pub fn new(context: Context, options: Options, pool_id: impl Into<String>) -> Self {
        let pool_id = pool_id.into();
        Self { pool_id, logins: BTreeMap::new(), role_arn: None, context, options }
    }

    /// Adds the token of a user of the identity provider `provider`, such as `accounts.google.com`
    /// or `cognito-idp.REGION.amazonaws.com/USER-POOL`.
    #[must_use]
    pub fn with_login(mut self, provider: impl Into<String>, token: impl Into<Secret>) -> Self {
        self.logins.insert(provider.into(), token.into());
        self
    }

    /// Sets the role, for a user who may have several.
    #[must_use]
    pub fn with_role(mut self, role_arn: impl Into<String>) -> Self {
        self.role_arn = Some(role_arn.into());
        self
    }

    fn logins(&self) -> Value {
        let pairs = self.logins.iter();
        let pairs = pairs.map(|(name, token)| (name.clone(), Value::from(token.expose())));
        Value::Object(pairs.collect())
    }

    async fn load(&self) -> Result<Credentials, Error> {
        let mut run = Run::new(&self.context, &self.options);
        let region = self.pool_id.split(':').next().unwrap_or_default();
        let endpoint = endpoint::of(&mut run, "cognito_identity", Some(region)).await?;
        let mut body = json!({ "IdentityPoolId": self.pool_id, "Logins": self.logins() });
        let found = post(&mut run, &endpoint.url, "GetId", &body).await?;
        let identity = answer::required("GetId", &found, "IdentityId")?;
        let operation = "GetCredentialsForIdentity";
        body = json!({ "IdentityId": identity, "Logins": self.logins() });
        if let Some(role) = &self.role_arn {
            body["CustomRoleArn"] = Value::from(role.as_str());
        }
        let found = post(&mut run, &endpoint.url, operation, &body).await?;
        let Some(Value::Object(keys)) = found.get("Credentials") else {
            return Err(Error::unexpected(operation, "the answer has no Credentials"));
        };
        let member = |key| answer::required(operation, keys, key);
        let seconds = keys.get("Expiration").and_then(Value::as_f64);
        let expires_at = seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
            .ok_or_else(|| Error::unexpected(operation, "the answer has no Expiration"))?;
        Ok(Credentials::new(member("AccessKeyId")?, member("SecretKey")?)
            .with_session_token(member("SessionToken")?)
            .with_expires_at(expires_at)
            .with_source(Source::Cognito))
    }
}

impl ProvideCredentials for CognitoIdentity {
    fn provide(&self) -> BoxFuture<'_, Result<Credentials, Error>> {
        Box::pin(self.load())
    }
}

async fn post(
    run: &mut Run<'_>,
    url: &str,
    operation: &'static str,
    body: &Value,
) -> Result<Map<String, Value>, Error> {
    let call = Call::new(operation, run);
    let target = format!("AWSCognitoIdentityService.{operation}");
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", &*target)];
    let (url, body) = (format!("{url}/"), Bytes::from(body.to_string()));
    let response = call.send(run, || request("POST", &url, &headers, body.clone())).await?;
    if !response.status().is_success() {
        return Err(Refusal::of(&response).error("Cognito identity", operation, None));
    }
    answer::object(operation, response.body())
}
