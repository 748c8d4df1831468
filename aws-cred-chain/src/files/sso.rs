//! A profile's settings of IAM Identity Center. Pure.

use crate::error::Error;
use crate::files::{Profile, Profiles, Property};
use crate::trace::Origin;

/// The settings of IAM Identity Center.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SsoPlan {
    /// The profile.
    pub profile: String,
    /// The name of the `[sso-session]` section; `None` for the older form without a section.
    pub session: Option<String>,
    /// The start URL.
    pub start_url: String,
    /// The region of the IAM Identity Center directory.
    pub region: String,
    /// The account id and the role's name; `None` if the profile gives a token only.
    pub account_and_role: Option<(String, String)>,
    /// The place of the profile's first setting of IAM Identity Center.
    pub origin: Origin,
}

/// Returns the profile's settings of IAM Identity Center, or `None` if it has none.
pub(crate) fn sso(
    profiles: &Profiles,
    profile: &Profile,
    name: &str,
) -> Result<Option<SsoPlan>, Error> {
    let session_name = profile.property("sso_session");
    let Some(origin) = sso_origin(profile) else { return Ok(None) };
    let invalid = |problem: String| Err(Error::invalid(problem, origin.clone()));
    let section = match session_name {
        None => profile,
        Some(session) => match profiles.sso_sessions.get(&session.value) {
            Some(section) => section,
            None => {
                return invalid(format!(
                    "sso-session named `{}` (referenced by profile `{name}`) was not found",
                    session.value
                ));
            }
        },
    };
    if session_name.is_some() {
        for key in ["sso_region", "sso_start_url"] {
            if let Some(value) = profile.value(key)
                && section.value(key) != Some(value)
            {
                return invalid(format!(
                    "`{key}` can only be specified in the [sso-session] config when a session \
                     name is given"
                ));
            }
        }
    }
    // As in the AWS CLI, the session's section may hold settings that the profile lacks.
    let either = |key: &str| match gives_credentials(profile) {
        true => profile.value(key).or_else(|| section.value(key)),
        false => None,
    };
    let account_and_role = match (either("sso_account_id"), either("sso_role_name")) {
        (Some(account), Some(role)) => Some((account.to_owned(), role.to_owned())),
        (None, None) => None,
        (account, _) => {
            let (set, unset) = match account {
                Some(_) => ("sso_account_id", "sso_role_name"),
                None => ("sso_role_name", "sso_account_id"),
            };
            return invalid(format!("if `{set}` is set, then `{unset}` must also be set"));
        }
    };
    let (Some(start_url), Some(region)) =
        (section.value("sso_start_url"), section.value("sso_region"))
    else {
        return invalid("SSO needs both `sso_start_url` and `sso_region`".to_owned());
    };
    Ok(Some(SsoPlan {
        profile: name.to_owned(),
        session: session_name.map(|session| session.value.clone()),
        start_url: start_url.to_owned(),
        region: region.to_owned(),
        account_and_role,
        origin,
    }))
}

/// Returns whether a profile gives credentials by IAM Identity Center, not only a token.
pub(super) fn gives_credentials(profile: &Profile) -> bool {
    ["sso_account_id", "sso_role_name"].into_iter().any(|key| profile.property(key).is_some())
}

const SSO_KEYS: [&str; 5] =
    ["sso_session", "sso_start_url", "sso_region", "sso_account_id", "sso_role_name"];

/// Returns the place of the profile's first setting of IAM Identity Center, in the order of
/// [`SSO_KEYS`].
pub(super) fn sso_origin(profile: &Profile) -> Option<Origin> {
    SSO_KEYS.into_iter().find_map(|key| profile.property(key)).map(Property::origin)
}
