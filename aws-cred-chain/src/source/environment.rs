//! Keys in environment variables.

use crate::credentials::{Credentials, Source};
use crate::error::Error;
use crate::timestamp;
use crate::trace::Origin;
use crate::world::Context;

const ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

/// Returns the environment's keys, or `None` if neither variable is set. Blank variables count as
/// not set.
pub(crate) fn load(context: &Context) -> Result<Option<Credentials>, Error> {
    let (id, secret) = match (context.var(ID)?, context.var(SECRET)?) {
        (Some(id), Some(secret)) => (id, secret),
        (None, None) => return Ok(None),
        (id, _) => {
            let (set, missing) = if id.is_some() { (ID, SECRET) } else { (SECRET, ID) };
            let problem = format!("{missing} is not set, but {set} is");
            return Err(Error::invalid(problem, Origin::Variable(set.into())));
        }
    };
    let mut credentials =
        Credentials::new(trimmed(id), trimmed(secret)).with_source(Source::Environment);
    // `AWS_SECURITY_TOKEN` is the older name. If both are set, botocore uses the older one. This
    // crate uses the name that AWS documents, as do the SDKs that know only that name: new keys are
    // set with the documented name, and an old token left in the other variable would not belong to
    // them.
    let token = match context.var("AWS_SESSION_TOKEN")? {
        Some(token) => Some(token),
        None => context.var("AWS_SECURITY_TOKEN")?,
    };
    credentials.session_token = token.map(|token| trimmed(token).into());
    credentials.account_id = context.var("AWS_ACCOUNT_ID")?;
    if let Some(text) = context.var("AWS_CREDENTIAL_EXPIRATION")? {
        let origin = || Origin::Variable("AWS_CREDENTIAL_EXPIRATION".into());
        let expires_at = timestamp::parse(&text)
            .ok_or_else(|| Error::invalid("not an ISO 8601 time", origin()))?;
        if expires_at <= context.clock.now() {
            let problem = format!("the environment's keys ended at {}", timestamp::iso(expires_at));
            return Err(Error::invalid(problem, origin()));
        }
        credentials.expires_at = Some(expires_at);
    }
    Ok(Some(credentials))
}

/// Removes blanks at both ends. Copies only if there are any.
fn trimmed(text: String) -> String {
    if text.trim().len() == text.len() {
        return text;
    }
    text.trim().to_owned()
}
