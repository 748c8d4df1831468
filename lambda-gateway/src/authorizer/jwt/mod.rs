//! JWT authorizers of HTTP APIs: tokens of an OpenID Connect issuer.
//!
//! Source: AWS, [Control access to HTTP APIs with JWT authorizers][doc].
//!
//! [doc]: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html

#[cfg(feature = "jwt")]
mod algorithm;
#[cfg(feature = "jwt")]
mod claims;
#[cfg(feature = "jwt")]
mod issuer;
#[cfg(feature = "jwt")]
mod keys;
#[cfg(feature = "jwt")]
mod token;

#[cfg(feature = "jwt")]
pub(crate) use issuer::Issuers;

use super::IdentitySource;

/// A JWT authorizer of an HTTP API (feature `jwt`).
///
/// A token passes if one of the issuer's RSA keys signed it (RS256, RS384, RS512), its `kid` names
/// that key, its `iss` is the issuer, its `aud` (or, without one, its `client_id`) is one of the
/// audiences, its `exp` is in the future and its `nbf` and `iat` are not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwtAuthorizer {
    /// The issuer's address. Its discovery document is at `/.well-known/openid-configuration`
    /// below it.
    pub issuer: String,
    /// The audiences of which a token has at least one.
    pub audience: Vec<String>,
    /// Where the token stands, with `Bearer ` before it or without.
    pub identity_source: IdentitySource,
}

impl JwtAuthorizer {
    /// Returns an authorizer of tokens in the header `Authorization`.
    #[must_use]
    pub fn new(issuer: &str, audience: Vec<String>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audience,
            identity_source: IdentitySource::Header("Authorization".to_owned()),
        }
    }
}

/// Why a token does not pass.
#[cfg(feature = "jwt")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request has none.
    NoToken,
    /// It has another form, or an extension that must be understood.
    Malformed,
    /// It is not signed by RSA with PKCS #1 padding.
    Algorithm,
    Issuer,
    /// The discovery document cannot be had.
    Discovery,
    /// The keys cannot be had.
    Keys,
    /// The issuer has no key of its name.
    UnknownKey,
    Signature,
    Expired,
    NotYet,
    Audience,
    /// It has none of the route's scopes.
    Scope,
}

#[cfg(feature = "jwt")]
impl Fault {
    /// Returns the description of the header `www-authenticate`. AWS documents that of the audience
    /// and is known for those of the two documents; the others are ours.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::NoToken => "the token is missing",
            Self::Malformed => "the token is malformed",
            Self::Algorithm => "the token's algorithm is not supported",
            Self::Issuer => "the token does not have a valid issuer",
            Self::Discovery => "OIDC discovery endpoint communication error",
            Self::Keys => "JWKS communication error",
            Self::UnknownKey => "the token's key is unknown",
            Self::Signature => "the token's signature is invalid",
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not valid yet",
            Self::Audience => "the token does not have a valid audience",
            Self::Scope => "the token does not have a required scope",
        }
    }

    /// Returns the error's name (RFC 6750, section 3.1).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scope => "insufficient_scope",
            _ => "invalid_token",
        }
    }

    /// Returns the header `www-authenticate`, with the scopes of the route.
    pub(crate) fn challenge(self, scopes: &[String]) -> String {
        match self {
            // RFC 6750: a request without a token is told no error.
            Self::NoToken => "Bearer".to_owned(),
            _ => format!(
                "Bearer scope=\"{}\" error=\"{}\" error_description=\"{}\"",
                scopes.join(" "),
                self.name(),
                self.description()
            ),
        }
    }
}
