//! Calls of AWS's SDK for Rust. Arguments: the endpoint, a runtime of this machine, an archive with
//! `app.handler`, which answers with its event.

use std::error::Error;
use std::time::Duration;

use aws_sdk_lambda::client::Waiters as _;
use aws_sdk_lambda::config::{Builder, Credentials, Region, retry::RetryConfig};
use aws_sdk_lambda::error::{DisplayErrorContext, ProvideErrorMetadata as _};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{
    AliasRoutingConfiguration, Environment, FunctionCode, InvocationType,
    InvokeWithResponseStreamResponseEvent as Part, LastUpdateStatus, LogType, Runtime, State,
};
use aws_sdk_lambda::Client;

const NAME: &str = "rust";
const WAIT: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, runtime, archive] = &arguments[..] else { panic!("three arguments") };
    let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", "not-a-secret", None, None, "test");
    let config = Builder::new()
        .behavior_version_latest()
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    let client = Client::from_conf(config.build());
    let zip = std::fs::read(archive).expect("an archive");
    functions(&client, runtime, zip).await.unwrap_or_else(|error| panic!("{error}"));
    versions(&client).await.unwrap_or_else(|error| panic!("{error}"));
    invocations(&client).await.unwrap_or_else(|error| panic!("{error}"));
    end(&client).await.unwrap_or_else(|error| panic!("{error}"));
}

type Done = Result<(), Box<dyn Error>>;

/// Says what a failed call answered.
trait Told<T> {
    fn told(self) -> Result<T, Box<dyn Error>>;
}

impl<T, E: Error + 'static> Told<T> for Result<T, E> {
    fn told(self) -> Result<T, Box<dyn Error>> {
        self.map_err(|error| DisplayErrorContext(&error).to_string().into())
    }
}

async fn functions(client: &Client, runtime: &str, zip: Vec<u8>) -> Done {
    let create = || {
        let code = FunctionCode::builder().zip_file(Blob::new(zip.clone())).build();
        (client.create_function().function_name(NAME).runtime(Runtime::from(runtime)))
            .handler("app.handler")
            .role("arn:aws:iam::123456789012:role/any")
            .code(code)
            .tags("a", "1")
    };
    let made = create().send().await.told()?;
    assert_eq!(made.state(), Some(&State::Pending));
    let active = client.wait_until_function_active_v2().function_name(NAME).wait(WAIT).await;
    active.map_err(|error| format!("{error:?}"))?;
    let taken = create().send().await.expect_err("the name is taken").into_service_error();
    assert!(taken.is_resource_conflict_exception(), "{taken:?}");
    let missing = client.get_function().function_name("missing").send().await;
    let missing = missing.expect_err("it is not there").into_service_error();
    assert!(missing.is_resource_not_found_exception(), "{missing:?}");
    let wrong = client.update_function_configuration().function_name(NAME).memory_size(1);
    let wrong = wrong.send().await.expect_err("too little").into_service_error();
    assert_eq!(wrong.code(), Some("ValidationException"), "{wrong:?}");

    let variables = Environment::builder().variables("KEY", "value").build();
    let update = client.update_function_configuration().function_name(NAME).memory_size(256);
    let updated = update.environment(variables).send().await.told()?;
    assert_eq!(updated.memory_size(), Some(256));
    let updated = client.wait_until_function_updated_v2().function_name(NAME).wait(WAIT).await;
    updated.map_err(|error| format!("{error:?}"))?;
    let found = client.get_function().function_name(NAME).send().await.told()?;
    let config = found.configuration().expect("a configuration");
    assert_eq!(config.last_update_status(), Some(&LastUpdateStatus::Successful));
    assert_eq!(config.environment().and_then(|it| it.variables()?.get("KEY")).unwrap(), "value");
    assert_eq!(found.tags().and_then(|it| it.get("a")).unwrap(), "1");
    assert!(found.code().and_then(|it| it.location()).is_some());
    Ok(())
}

async fn versions(client: &Client) -> Done {
    for description in ["one", "two", "three"] {
        let update = client.update_function_configuration().function_name(NAME);
        update.description(description).send().await.told()?;
        let updated = client.wait_until_function_updated_v2().function_name(NAME).wait(WAIT).await;
        updated.map_err(|error| format!("{error:?}"))?;
        client.publish_version().function_name(NAME).send().await.told()?;
    }
    let pages = client.list_versions_by_function().function_name(NAME).into_paginator();
    let versions: Vec<_> = pages.page_size(2).items().send().collect().await;
    let versions = versions.into_iter().collect::<Result<Vec<_>, _>>().told()?;
    let numbers: Vec<_> = versions.iter().filter_map(|it| it.version()).collect();
    assert_eq!(numbers, ["$LATEST", "1", "2", "3"]);
    let routing = AliasRoutingConfiguration::builder().additional_version_weights("2", 0.25);
    let alias = client.create_alias().function_name(NAME).name("live").function_version("1");
    let alias = alias.routing_config(routing.build()).send().await.told()?;
    let weights = alias.routing_config().and_then(|it| it.additional_version_weights());
    assert_eq!(weights.unwrap()["2"], 0.25);
    Ok(())
}

async fn invocations(client: &Client) -> Done {
    let call = || client.invoke().function_name(NAME).payload(Blob::new(r#"{"key":[1]}"#));
    let answer = call().log_type(LogType::Tail).send().await.told()?;
    assert_eq!(answer.payload().unwrap().as_ref(), r#"{"key": [1]}"#.as_bytes());
    assert!(answer.log_result().is_some() && answer.function_error().is_none());
    let aliased = call().qualifier("live").send().await.told()?;
    assert!(["1", "2"].contains(&aliased.executed_version().unwrap()));
    let event = call().invocation_type(InvocationType::Event).send().await.told()?;
    assert_eq!(event.status_code(), 202);
    let streamed = client.invoke_with_response_stream().function_name(NAME);
    let mut stream = streamed.payload(Blob::new("[1]")).send().await.told()?.event_stream;
    let (mut text, mut complete) = (Vec::new(), false);
    while let Some(part) = stream.recv().await.map_err(|error| format!("{error:?}"))? {
        match part {
            Part::PayloadChunk(chunk) => text.extend(chunk.payload.unwrap().into_inner()),
            Part::InvokeComplete(end) => complete = end.error_code().is_none(),
            _ => panic!("another part"),
        }
    }
    assert_eq!((text.as_slice(), complete), (&b"[1]"[..], true));
    Ok(())
}

async fn end(client: &Client) -> Done {
    client.delete_function().function_name(NAME).send().await.told()?;
    let gone = client.invoke().function_name(NAME).send().await.expect_err("it is gone");
    assert!(gone.into_service_error().is_resource_not_found_exception());
    Ok(())
}
