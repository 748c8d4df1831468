//! The fake Security Token Service. It checks signatures by signing again with the secrets that it
//! knows.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::services::{Answer, State, User, form, header};
use crate::credentials::{Credentials, Secret};
use crate::sign::{Signer, Unsigned};
use crate::timestamp;

impl State {
    pub(super) fn sts(
        &mut self,
        now: SystemTime,
        action: &str,
        request: &http::Request<Bytes>,
    ) -> Answer {
        if header(request, "content-type") != Some("application/x-www-form-urlencoded") {
            return refusal(400, "InvalidParameterValue", "not a form");
        }
        let form = form(request.body());
        let member = |name: &str| form.get(name).map(String::as_str);
        let seconds = member("DurationSeconds").and_then(|s| s.parse().ok()).unwrap_or(3600);
        let life = Duration::from_secs(seconds);
        if action == "AssumeRoleWithWebIdentity" {
            let role = member("RoleArn").and_then(|arn| self.roles.get(arn)).cloned();
            let token = member("WebIdentityToken");
            return match role {
                Some(role) if role.web_identity_token.as_ref().map(Secret::expose) == token => {
                    self.assumed(now, action, &role.role_arn, life)
                }
                _ => refusal(400, "InvalidIdentityToken", "the token is not accepted"),
            };
        }
        let (id, user) = match self.signer(now, request) {
            Ok(signer) => signer,
            Err(answer) => return answer,
        };
        match action {
            "AssumeRole" => {
                let role = member("RoleArn").and_then(|arn| self.roles.get(arn)).cloned();
                let Some(role) = role else {
                    return refusal(
                        403,
                        "AccessDenied",
                        "not authorized to perform: sts:AssumeRole",
                    );
                };
                let mfa = role.mfa.as_ref().map(|(serial, code)| (serial.as_str(), code.expose()));
                let sent = member("SerialNumber").zip(member("TokenCode"));
                if role.external_id.as_deref() != member("ExternalId")
                    || mfa.map(|(serial, _)| serial) != sent.map(|(serial, _)| serial)
                {
                    return refusal(403, "AccessDenied", "external id or MFA device is wrong");
                }
                if mfa != sent {
                    let message =
                        "MultiFactorAuthentication failed with invalid MFA one time pass code. ";
                    return refusal(403, "AccessDenied", message);
                }
                self.assumed(now, action, &role.role_arn, life)
            }
            "GetSessionToken" => {
                let keys = self.issue(now, &user.account, life);
                (200, envelope(action, &keys, ""))
            }
            "GetCallerIdentity" => {
                let body = format!(
                    "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::{0}:user/\
                     {id}</Arn><UserId>{id}</UserId><Account>{0}</Account></GetCallerIdentityResult>\
                     </GetCallerIdentityResponse>",
                    user.account
                );
                (200, body)
            }
            _ => refusal(400, "InvalidAction", "not known"),
        }
    }

    fn assumed(&mut self, now: SystemTime, action: &str, role_arn: &str, life: Duration) -> Answer {
        let account = role_arn.split(':').nth(4).unwrap_or_default().to_owned();
        let name = role_arn.rsplit('/').next().unwrap_or_default().to_owned();
        let keys = self.issue(now, &account, life);
        let arn = format!("<Arn>arn:aws:sts::{account}:assumed-role/{name}/session</Arn>");
        (200, envelope(action, &keys, &arn))
    }

    /// Checks the signature as AWS does: signs again with the known secret, and compares.
    fn signer(
        &self,
        now: SystemTime,
        request: &http::Request<Bytes>,
    ) -> Result<(String, User), Answer> {
        let denied = |code: &str, message: &str| Err(refusal(403, code, message));
        let authorization = header(request, "authorization").unwrap_or_default();
        let part = |name: &str| {
            let rest = authorization.split_once(name)?.1;
            Some(rest.split(',').next().unwrap_or_default().trim())
        };
        let Some(scope) = part("Credential=") else {
            return denied("MissingAuthenticationToken", "the request is not signed");
        };
        let mut scope = scope.split('/');
        let (id, _, region) = (scope.next(), scope.next(), scope.next().unwrap_or_default());
        let id = id.unwrap_or_default();
        let Some(user) = self.users.get(id) else {
            return denied("InvalidClientTokenId", "the access key id is not known");
        };
        if user.expires_at.is_some_and(|at| at <= now) {
            return denied("ExpiredToken", "the session has expired");
        }
        if user.token.as_ref().map(Secret::expose) != header(request, "x-amz-security-token") {
            return denied("InvalidClientTokenId", "the session token is wrong");
        }
        let time =
            header(request, "x-amz-date").and_then(compact).unwrap_or(SystemTime::UNIX_EPOCH);
        let skew = now.duration_since(time).or_else(|_| time.duration_since(now));
        if skew.is_ok_and(|skew| skew > Duration::from_secs(900)) {
            return denied("SignatureDoesNotMatch", "the signature is too old");
        }
        let mut keys = Credentials::new(id, user.secret.clone());
        keys.session_token.clone_from(&user.token);
        let signed: Vec<&str> = part("SignedHeaders=").unwrap_or_default().split(';').collect();
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let headers: Vec<(&str, &str)> = signed
            .iter()
            .filter(|name| !name.starts_with("x-amz-"))
            .map(|name| {
                let value =
                    if *name == "host" { Some(host.as_str()) } else { header(request, name) };
                (*name, value.unwrap_or_default())
            })
            .collect();
        let uri = request.uri();
        let query = uri.query().unwrap_or_default();
        let unsigned =
            Unsigned::new(request.method().as_str(), uri.path(), query, &headers, request.body());
        let again = Signer::new(&keys, region, "sts", time).sign_headers(&unsigned);
        if part("Signature=") != Some(again.signature.as_str()) {
            return denied("SignatureDoesNotMatch", "the signature is wrong");
        }
        Ok((id.to_owned(), user.clone()))
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>\
         </Error><RequestId>fake</RequestId></ErrorResponse>"
    );
    (status, body)
}

fn envelope(action: &str, keys: &Credentials, more: &str) -> String {
    format!(
        "<{action}Response><{action}Result><AssumedRoleUser>{more}</AssumedRoleUser><Credentials>\
         <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}\
         </SessionToken><Expiration>{}</Expiration></Credentials></{action}Result></{action}Response>",
        keys.access_key_id,
        keys.secret_access_key.expose(),
        keys.session_token.as_ref().map(Secret::expose).unwrap_or_default(),
        keys.expires_at.map(timestamp::iso).unwrap_or_default(),
    )
}

/// Parses the form `20210921T184126Z`.
fn compact(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once('T')?;
    if date.len() != 8 || time.len() != 7 || !text.is_ascii() {
        return None;
    }
    timestamp::parse(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        &date[..4],
        &date[4..6],
        &date[6..],
        &time[..2],
        &time[2..4],
        &time[4..6]
    ))
}
