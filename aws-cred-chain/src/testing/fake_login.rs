//! Logins at the fake IAM Identity Center and at the fake sign-in service.

use std::time::{Duration, SystemTime};

use hmac_sha256::Hash;
use serde_json::{Value, json};

use super::logins::Authorized;
use super::services::{Answer, Sso, State, form};
use crate::credentials::Secret;
use crate::sign::percent_encode;

impl State {
    /// Logs a person in on the page `url`, and returns the query of the redirect.
    pub(super) fn authorize(&mut self, url: &str) -> Option<String> {
        let query = form(url.split_once('?')?.1.as_bytes());
        let member = |name: &str| query.get(name).cloned();
        if member("response_type")? != "code" {
            return None;
        }
        self.issued += 1;
        let code = format!("code-{}", self.issued);
        self.logins.codes.push(Authorized {
            code: code.as_str().into(),
            challenge: member("code_challenge")?,
            redirect_uri: member("redirect_uri")?,
        });
        Some(format!("code={code}&state={}", percent_encode(&member("state")?)))
    }

    /// Redeems an authorization code. It must be known and belong to this redirect, and the
    /// verifier must match its challenge.
    fn redeem(&mut self, body: &Value) -> bool {
        let code = body["code"].as_str().unwrap_or_default();
        let found = self.logins.codes.iter().position(|it| it.code.expose() == code);
        let Some(authorized) = found.map(|at| self.logins.codes.remove(at)) else {
            return false;
        };
        let verifier = body["codeVerifier"].as_str().unwrap_or_default();
        let challenge = url_base64(&Hash::hash(verifier.as_bytes()));
        challenge == authorized.challenge && body["redirectUri"] == authorized.redirect_uri.as_str()
    }

    /// Answers the calls of a login to IAM Identity Center; `None` for other calls.
    pub(super) fn sso_login(
        &mut self,
        now: SystemTime,
        path: &str,
        body: &Value,
    ) -> Option<Answer> {
        let refused = |code: &str| Some((400, json!({ "error": code }).to_string()));
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        if path == "/client/register" {
            self.issued += 1;
            let (id, secret) =
                (format!("client-{}", self.issued), format!("client-secret-{}", self.issued));
            self.logins.clients.push((id.clone(), secret.as_str().into()));
            let ends = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs() + 90 * 86_400;
            let body =
                json!({ "clientId": id, "clientSecret": secret, "clientSecretExpiresAt": ends });
            return Some((200, body.to_string()));
        }
        let grant = text("grantType");
        if path == "/token" && grant == "refresh_token" {
            return None;
        }
        let known =
            self.logins.clients.iter().any(|(id, secret)| {
                id == text("clientId") && secret.expose() == text("clientSecret")
            });
        if !known {
            return refused("invalid_client");
        }
        match (path, grant) {
            ("/device_authorization", _) => {
                self.logins.device_code = Some("device-code".into());
                let url = "https://device.sso.us-east-1.amazonaws.com/";
                let body = json!({
                    "deviceCode": "device-code", "userCode": "ABCD-EFGH", "verificationUri": url,
                    "verificationUriComplete": format!("{url}?user_code=ABCD-EFGH"),
                    "expiresIn": 600, "interval": 1,
                });
                return Some((200, body.to_string()));
            }
            ("/token", "urn:ietf:params:oauth:grant-type:device_code") => {
                let device = self.logins.device_code.as_ref().map(Secret::expose);
                if device != Some(text("deviceCode")) {
                    return refused("invalid_grant");
                }
                if let Some(error) = self.logins.polls.pop_front() {
                    return refused(&error);
                }
                self.logins.device_code = None;
            }
            ("/token", "authorization_code") if self.redeem(body) => {}
            _ => return refused("invalid_grant"),
        }
        self.issued += 1;
        let access = format!("access-{}", self.issued);
        let refresh = format!("sso-refresh-{}", self.issued);
        self.sso = Some(Sso {
            access_token: access.as_str().into(),
            refresh_token: refresh.as_str().into(),
        });
        let body = json!({
            "accessToken": access, "expiresIn": 28_800, "refreshToken": refresh, "tokenType": "Bearer",
        });
        Some((200, body.to_string()))
    }

    /// Answers the exchange of a code for a console session; `None` for other calls.
    pub(super) fn console_login(&mut self, now: SystemTime, body: &Value) -> Option<Answer> {
        if body["grantType"] != "authorization_code" {
            return None;
        }
        if !self.redeem(body) {
            let body = json!({ "error": "AUTHCODE_EXPIRED", "message": "the code is not valid" });
            return Some((400, body.to_string()));
        }
        let keys = self.issue(now, "123456789012", Duration::from_secs(900));
        let refresh = format!("refresh-{}", self.issued);
        self.sign_in = Some(refresh.as_str().into());
        let claims = json!({ "sub": "arn:aws:sts::123456789012:assumed-role/Admin/person" });
        let identity = format!("e30.{}.c2ln", url_base64(claims.to_string().as_bytes()));
        let body = json!({
            "accessToken": {
                "accessKeyId": keys.access_key_id,
                "secretAccessKey": keys.secret_access_key.expose(),
                "sessionToken": keys.session_token.as_ref().map(Secret::expose),
            },
            "tokenType": "aws_sigv4", "expiresIn": 900, "refreshToken": refresh, "idToken": identity,
        });
        Some((200, body.to_string()))
    }
}

/// Encodes as RFC 7636 and JWTs do. Independent of the encoder under test.
fn url_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let sextets = bits.as_bytes().chunks(6);
    sextets
        .map(|sextet| {
            let text = String::from_utf8_lossy(sextet);
            let index = usize::from_str_radix(&format!("{text:0<6}"), 2).unwrap_or(0);
            char::from(ALPHABET[index & 63])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_without_padding() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg"), (b"foob", "Zm9vYg"), (b"\xff\xfe", "__4")]
        {
            assert_eq!(url_base64(bytes), text);
        }
    }
}
