//! Implements `object_store::CredentialProvider`, for `AmazonS3Builder::with_credentials`.

use std::sync::Arc;

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

use super::Bridge;
use crate::credentials::Secret;

#[async_trait::async_trait]
impl CredentialProvider for Bridge {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let ours = self.provider.provide().await.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        Ok(Arc::new(AwsCredential {
            key_id: ours.access_key_id,
            secret_key: ours.secret_access_key.expose().to_owned(),
            token: ours.session_token.as_ref().map(Secret::expose).map(str::to_owned),
        }))
    }
}
