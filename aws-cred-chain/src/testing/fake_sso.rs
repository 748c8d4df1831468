//! The fake IAM Identity Center, its token service, and the sign-in service of `aws login`.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;

use super::services::{Answer, Sso, State, form, header};
use crate::credentials::Secret;

impl State {
    pub(super) fn sso(
        &mut self,
        now: SystemTime,
        request: &http::Request<Bytes>,
    ) -> Option<Answer> {
        let sso = self.sso.clone()?;
        if header(request, "x-amz-sso_bearer_token") != Some(sso.access_token.expose()) {
            let body = json!({"message": "Session token not found or invalid"});
            return Some((401, body.to_string()));
        }
        let query = form(request.uri().query().unwrap_or_default().as_bytes());
        let account = query.get("account_id").cloned().unwrap_or_default();
        let keys = self.issue(now, &account, Duration::from_secs(3600));
        let expires =
            keys.expires_at?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs() * 1000;
        let body = json!({"roleCredentials": {
            "accessKeyId": keys.access_key_id,
            "secretAccessKey": keys.secret_access_key.expose(),
            "sessionToken": keys.session_token.as_ref().map(Secret::expose),
            "expiration": expires,
        }});
        Some((200, body.to_string()))
    }

    pub(super) fn sso_oidc(
        &mut self,
        #[cfg(feature = "login")] now: SystemTime,
        request: &http::Request<Bytes>,
    ) -> Option<Answer> {
        let body: serde_json::Value = serde_json::from_slice(request.body()).ok()?;
        #[cfg(feature = "login")]
        if let Some(answer) = self.sso_login(now, request.uri().path(), &body) {
            return Some(answer);
        }
        let sso = self.sso.clone()?;
        let refresh = body.get("refreshToken").and_then(serde_json::Value::as_str);
        if request.uri().path() != "/token" || refresh != Some(sso.refresh_token.expose()) {
            let body =
                json!({"error": "invalid_grant", "error_description": "Invalid refresh token"});
            return Some((400, body.to_string()));
        }
        self.issued += 1;
        let access = format!("access-{}", self.issued);
        let body = json!({"accessToken": access, "expiresIn": 28_800, "tokenType": "Bearer"});
        self.sso = Some(Sso { access_token: access.into(), ..sso });
        Some((200, body.to_string()))
    }

    #[cfg(feature = "login")]
    pub(super) fn sign_in(
        &mut self,
        now: SystemTime,
        request: &http::Request<Bytes>,
    ) -> Option<Answer> {
        let refused = |code: &str| Some((400, json!({"error": code, "message": code}).to_string()));
        let url = request.uri().to_string();
        if !header(request, "dpop").is_some_and(|proof| proves(proof, &url, now)) {
            return refused("invalid_request");
        }
        let body: serde_json::Value = serde_json::from_slice(request.body()).ok()?;
        if let Some(answer) = self.console_login(now, &body) {
            return Some(answer);
        }
        let expected = self.sign_in.clone()?;
        if body["refreshToken"] != expected.expose() || body["grantType"] != "refresh_token" {
            return refused("TOKEN_EXPIRED");
        }
        let keys = self.issue(now, "123456789012", Duration::from_secs(900));
        let refresh = format!("refresh-{}", self.issued);
        self.sign_in = Some(refresh.as_str().into());
        let body = json!({
            "accessToken": {
                "accessKeyId": keys.access_key_id,
                "secretAccessKey": keys.secret_access_key.expose(),
                "sessionToken": keys.session_token.as_ref().map(Secret::expose),
            },
            "tokenType": "aws_sigv4", "expiresIn": 900, "refreshToken": refresh,
        });
        Some((200, body.to_string()))
    }
}

/// Checks a proof of possession: its signature by the key that it contains, its URL and its time.
#[cfg(feature = "login")]
fn proves(proof: &str, url: &str, now: SystemTime) -> bool {
    use crate::base64::decode;
    let parts: Vec<&str> = proof.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        return false;
    };
    let json =
        |part: &str| -> Option<serde_json::Value> { serde_json::from_slice(&decode(part)?).ok() };
    let (Some(head), Some(claims), Some(signature)) =
        (json(header), json(payload), decode(signature))
    else {
        return false;
    };
    let mut point = vec![4];
    for axis in ["x", "y"] {
        point.extend(head["jwk"][axis].as_str().and_then(decode).unwrap_or_default());
    }
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED;
    let key = ring::signature::UnparsedPublicKey::new(algorithm, point);
    let input = format!("{header}.{payload}");
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    key.verify(input.as_bytes(), &signature).is_ok()
        && head["typ"] == "dpop+jwt"
        && claims["htm"] == "POST"
        && claims["htu"] == url
        && claims["iat"].as_u64().is_some_and(|iat| iat.abs_diff(seconds) < 300)
}
