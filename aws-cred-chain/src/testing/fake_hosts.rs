//! The fake container endpoint and the fake metadata service.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;

use super::services::{Answer, State, header};
use crate::credentials::Secret;
use crate::timestamp;

impl State {
    pub(super) fn container(
        &mut self,
        now: SystemTime,
        request: &http::Request<Bytes>,
    ) -> Option<Answer> {
        let container = self.container.clone()?;
        let expected = container.authorization.as_ref().map(Secret::expose);
        if header(request, "authorization") != expected {
            let body = json!({"code": "AccessDenied", "message": "token is wrong"});
            return Some((403, body.to_string()));
        }
        Some((200, self.json_keys(now, "Success")))
    }

    pub(super) fn metadata(
        &mut self,
        now: SystemTime,
        request: &http::Request<Bytes>,
    ) -> Option<Answer> {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let metadata = self.metadata.clone()?;
        let path = request.uri().path();
        let not_found = Some((404, String::new()));
        if path == "/latest/api/token" {
            let ttl = header(request, "x-aws-ec2-metadata-token-ttl-seconds");
            let ttl = ttl.and_then(|ttl| ttl.parse::<u32>().ok());
            if request.method() != http::Method::PUT
                || !ttl.is_some_and(|t| (1..=21_600).contains(&t))
            {
                return Some((400, String::new()));
            }
            if header(request, "x-forwarded-for").is_some() {
                return Some((403, String::new()));
            }
            // The hop limit of the answer is lower than the distance of the caller, so the answer
            // is lost.
            if metadata.hops > metadata.hop_limit {
                return None;
            }
            self.metadata_tokens += 1;
            return Some((200, format!("metadata-token-{}", self.metadata_tokens)));
        }
        let token = header(request, "x-aws-ec2-metadata-token");
        let known =
            (1..=self.metadata_tokens).any(|n| token == Some(&format!("metadata-token-{n}")));
        let allowed = known || (token.is_none() && metadata.v1);
        if !allowed {
            return Some((401, String::new()));
        }
        match (metadata.role, path.strip_prefix(ROLES)) {
            (Some(role), Some("")) => Some((200, role)),
            (Some(role), Some(name)) if name == role => Some((200, self.json_keys(now, "Success"))),
            _ if path == "/latest/meta-data/placement/region" => {
                Some((200, "us-west-2".to_owned()))
            }
            _ => not_found,
        }
    }

    fn json_keys(&mut self, now: SystemTime, code: &str) -> String {
        let keys = self.issue(now, "123456789012", Duration::from_secs(6 * 3600));
        json!({
            "Code": code,
            "AccessKeyId": keys.access_key_id,
            "SecretAccessKey": keys.secret_access_key.expose(),
            "Token": keys.session_token.as_ref().map(Secret::expose),
            "Expiration": keys.expires_at.map(timestamp::iso),
        })
        .to_string()
    }
}
