//! AWS services beside the host, at an endpoint that is set: queues, topics, event buses, streams.

use std::time::{Duration, SystemTime};

use aws_cred_chain::sign::Signer;
use aws_cred_chain::{Cache, Chain, Context, Credentials, Options};
use bytes::Bytes;
use lambda_sandbox::BoxFuture;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::deliver::{Deliver, Delivery};
use crate::error::Error;

/// Speaks to AWS services at one endpoint, with the credentials of a chain.
#[derive(Clone, Debug)]
pub struct Services {
    context: Context,
    credentials: Cache,
    endpoint: String,
    region: String,
}

impl Services {
    /// Returns a client of the services at `endpoint`, for example `http://127.0.0.1:5000`. An endpoint on loopback is
    /// also asked without credentials: with keys that are none.
    #[must_use]
    pub fn new(context: Context, options: Options, endpoint: &str, region: &str) -> Self {
        let chain = Chain::new(context.clone(), options);
        let credentials = Cache::new(context.clone(), chain);
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Self { context, credentials, endpoint, region: region.to_owned() }
    }

    /// The region of the services.
    pub(super) fn region(&self) -> &str {
        &self.region
    }

    /// Calls an operation of a service that speaks JSON; `target` is the operation with its prefix.
    pub(super) async fn json(
        &self,
        service: &'static str,
        target: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        let version = if matches!(service, "kinesis" | "events") { "1.1" } else { "1.0" };
        let headers = [
            ("content-type", format!("application/x-amz-json-{version}")),
            ("x-amz-target", target.to_owned()),
        ];
        let (status, answer) = self.send(service, &headers, body.to_string().into()).await?;
        let answer: Value = match answer.is_empty() {
            true => json!({}),
            false => serde_json::from_slice(&answer)
                .map_err(|error| refused(service, "unreadable", &format!("{status}: {error}")))?,
        };
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let kind = answer["__type"].as_str().unwrap_or_default();
        let kind = kind.rsplit('#').next().unwrap_or_default();
        let text = |name: &str| answer[name].as_str();
        Err(refused(service, kind, text("message").or_else(|| text("Message")).unwrap_or_default()))
    }

    async fn publish(&self, delivery: &Delivery) -> Result<(), Error> {
        let mut pairs = vec![
            ("Action".to_owned(), "Publish".to_owned()),
            ("Version".to_owned(), "2010-03-31".to_owned()),
            ("TopicArn".to_owned(), delivery.target.clone()),
            ("Message".to_owned(), delivery.body.clone()),
        ];
        for (number, (name, value)) in delivery.attributes.iter().enumerate() {
            let entry = format!("MessageAttributes.entry.{}", number + 1);
            let (kind, text) = attribute(value);
            pairs.push((format!("{entry}.Name"), name.clone()));
            pairs.push((format!("{entry}.Value.DataType"), kind.to_owned()));
            pairs.push((format!("{entry}.Value.StringValue"), text));
        }
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs =
            pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
        let (status, answer) = self.send("sns", &headers, body.into()).await?;
        match status {
            200..300 => Ok(()),
            _ => Err(refused("sns", &status.to_string(), &String::from_utf8_lossy(&answer))),
        }
    }

    async fn send_message(&self, delivery: &Delivery) -> Result<(), Error> {
        let url = self.queue_url(&delivery.target).await?;
        let attributes = delivery.attributes.iter().map(|(name, value)| {
            let (kind, text) = attribute(value);
            (name.clone(), json!({ "DataType": kind, "StringValue": text }))
        });
        let mut body = json!({
            "QueueUrl": url,
            "MessageBody": delivery.body,
            "MessageAttributes": attributes.collect::<serde_json::Map<_, _>>(),
        });
        if let Some(trace) = &delivery.trace_id {
            body["MessageSystemAttributes"] =
                json!({ "AWSTraceHeader": { "DataType": "String", "StringValue": trace } });
        }
        self.json("sqs", "AmazonSQS.SendMessage", &body).await.map(drop)
    }

    async fn put_event(&self, delivery: &Delivery) -> Result<(), Error> {
        let bus = delivery.target.rsplit('/').next().unwrap_or("default");
        let entry = json!({
            "Source": "lambda",
            "DetailType": "Lambda Function Invocation Result",
            "EventBusName": bus,
            "Detail": delivery.body,
        });
        self.json("events", "AWSEvents.PutEvents", &json!({ "Entries": [entry] })).await.map(drop)
    }

    /// Returns the URL of the queue with an ARN.
    pub(super) async fn queue_url(&self, arn: &str) -> Result<String, Error> {
        let mut parts = arn.splitn(6, ':').skip(4);
        let (account, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let body = json!({ "QueueName": name, "QueueOwnerAWSAccountId": account });
        let answer = self.json("sqs", "AmazonSQS.GetQueueUrl", &body).await?;
        Ok(answer["QueueUrl"].as_str().unwrap_or_default().to_owned())
    }

    async fn credentials(&self) -> Result<Credentials, Error> {
        match self.credentials.credentials().await {
            Ok(credentials) => Ok(Credentials::clone(&credentials)),
            Err(_) if is_loopback(&self.endpoint) => Ok(Credentials::new("none", "none")),
            Err(error) => Err(refused("credentials", "none", &crate::error::with_causes(&error))),
        }
    }

    async fn send(
        &self,
        service: &'static str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<(u16, Bytes), Error> {
        let failed = |error: &dyn std::error::Error| {
            refused(service, "unreachable", &crate::error::with_causes(error))
        };
        let mut request =
            http::Request::builder().method("POST").uri(format!("{}/", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(body.clone()).map_err(|error| failed(&error))?;
        let credentials = self.credentials().await?;
        // The streams of tables are signed as the tables are.
        let signed_as = if service == "streams.dynamodb" { "dynamodb" } else { service };
        let signer = Signer::new(&credentials, &self.region, signed_as, SystemTime::now());
        signer.sign(&mut request, &body).map_err(|error| failed(&error))?;
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.context.http().send(request)).await;
        let answer = answer
            .map_err(|_| refused(service, "unreachable", "no answer in time"))?
            .map_err(|error| failed(&error))?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }
}

impl Deliver for Services {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match delivery.target.split(':').nth(2) {
                Some("sqs") => self.send_message(delivery).await,
                Some("sns") => self.publish(delivery).await,
                Some("events") => self.put_event(delivery).await,
                other => Err(refused(
                    "destination",
                    "unsupported",
                    &format!("messages are not delivered to {}", other.unwrap_or_default()),
                )),
            }
        })
    }
}

/// The type of an attribute and its value as text.
fn attribute(value: &Value) -> (&'static str, String) {
    match value {
        Value::String(text) => ("String", text.clone()),
        number => ("Number", number.to_string()),
    }
}

fn is_loopback(endpoint: &str) -> bool {
    let uri: Option<http::Uri> = endpoint.parse().ok();
    let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
}

fn refused(service: &'static str, code: &str, message: &str) -> Error {
    Error::Service { service, code: code.to_owned(), message: message.to_owned() }
}

/// Longer than a queue is waited at.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
