//! The bridges give the peers what the chain gives, and its errors by kind.

use aws_cred_chain::bridge::Bridge;
use aws_cred_chain::testing::World;
use aws_cred_chain::{Chain, Credentials, Options, block_on};

fn found() -> Bridge {
    let expires = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    Bridge::new(
        Credentials::new("AKID", "secret")
            .with_session_token("token")
            .with_account_id("123456789012")
            .with_expires_at(expires),
    )
}

fn nothing() -> Bridge {
    Bridge::new(Chain::new(World::new().context(), Options::default()))
}

fn broken() -> Bridge {
    let world = World::new().env("AWS_ACCESS_KEY_ID", "AKID");
    Bridge::new(Chain::new(world.context(), Options::default()))
}

#[cfg(feature = "aws-credential-types")]
#[test]
fn the_sdk_takes_the_chain() {
    use aws_credential_types::provider::ProvideCredentials as _;
    use aws_credential_types::provider::error::CredentialsError;
    let theirs = block_on(found().provide_credentials()).unwrap();
    assert_eq!(theirs.access_key_id(), "AKID");
    assert_eq!(theirs.secret_access_key(), "secret");
    assert_eq!(theirs.session_token(), Some("token"));
    assert_eq!(theirs.account_id().map(|id| id.as_str()), Some("123456789012"));
    assert!(theirs.expiry().is_some());
    let error = block_on(nothing().provide_credentials()).unwrap_err();
    assert!(matches!(error, CredentialsError::CredentialsNotLoaded(_)), "{error:?}");
    let error = block_on(broken().provide_credentials()).unwrap_err();
    assert!(matches!(error, CredentialsError::InvalidConfiguration(_)), "{error:?}");
}

#[cfg(feature = "object_store")]
#[test]
fn object_store_takes_the_chain() {
    use object_store::CredentialProvider as _;
    let theirs = block_on(found().get_credential()).unwrap();
    assert_eq!((theirs.key_id.as_str(), theirs.secret_key.as_str()), ("AKID", "secret"));
    assert_eq!(theirs.token.as_deref(), Some("token"));
    assert!(block_on(nothing().get_credential()).is_err());
    assert!(block_on(broken().get_credential()).is_err());
    let builder = object_store::aws::AmazonS3Builder::new().with_bucket_name("b").with_region("r");
    builder.with_credentials(std::sync::Arc::new(found())).build().unwrap();
}

#[cfg(feature = "reqsign")]
#[test]
fn reqsign_takes_the_chain() {
    use reqsign_core::{Context, ErrorKind, ProvideCredential as _};
    let context = Context::new();
    let theirs = block_on(found().provide_credential(&context)).unwrap().unwrap();
    assert_eq!(
        (theirs.access_key_id.as_str(), theirs.secret_access_key.as_str()),
        ("AKID", "secret")
    );
    assert_eq!(theirs.session_token.as_deref(), Some("token"));
    assert!(theirs.expires_in.is_some());
    assert!(block_on(nothing().provide_credential(&context)).unwrap().is_none());
    let error = block_on(broken().provide_credential(&context)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
}
