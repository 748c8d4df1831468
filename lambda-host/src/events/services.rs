//! AWS services beside the host, at an endpoint that is set: queues, topics, event buses, streams.

use std::time::{Duration, SystemTime};

use aws_cred_chain::sign::Signer;
use aws_cred_chain::{Cache, Chain, Context, Credentials, Options};
use bytes::Bytes;
use lambda_sandbox::BoxFuture;
#[cfg(feature = "http")]
use percent_encoding::AsciiSet;
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
    /// Returns a client of the services at `endpoint`, for example `http://127.0.0.1:5000`. An
    /// endpoint on loopback is also asked without credentials: with keys that are none.
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

    /// Reads an object from S3, in parts of the size that the HTTP client takes.
    #[cfg(feature = "http")]
    pub(crate) async fn object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        bytes_max: usize,
    ) -> Result<Bytes, Error> {
        let encoded = |text: &str| utf8_percent_encode(text, OF_A_PATH).to_string();
        let mut uri = format!("{}/{}/{}", self.endpoint, encoded(bucket), encoded(key));
        if let Some(version) = version {
            uri.push_str(&format!("?versionId={}", utf8_percent_encode(version, NON_ALPHANUMERIC)));
        }
        let mut object = Vec::new();
        let mut tag: Option<String> = None;
        loop {
            let range = format!("bytes={}-{}", object.len(), object.len() + PART_BYTES - 1);
            let hash = crate::code::CodeDigest::of(b"").hex();
            let mut headers = vec![("range", range), ("x-amz-content-sha256", hash)];
            // The parts are of one object, or none are.
            headers.extend(tag.clone().map(|tag| ("if-match", tag)));
            let answer = self.exchange("GET", &uri, "s3", &headers, Bytes::new()).await?;
            let status = answer.status().as_u16();
            let header = |name: &str| answer.headers().get(name).and_then(|it| it.to_str().ok());
            let whole =
                header("content-range").and_then(|it| it.rsplit('/').next()?.parse::<usize>().ok());
            tag = tag.or_else(|| header("etag").map(str::to_owned));
            match (status, whole) {
                (200, _) => return Ok(answer.into_body()),
                (206, Some(whole)) if whole <= bytes_max && !answer.body().is_empty() => {
                    object.extend_from_slice(answer.body());
                    if object.len() >= whole {
                        return Ok(object.into());
                    }
                }
                (206, Some(whole)) if whole > bytes_max => {
                    return Err(Error::parameter(format!(
                        "Unzipped size must be smaller than {bytes_max} bytes"
                    )));
                }
                // An empty object has no range that could be requested: S3 answers 416.
                (416, _) if object.is_empty() => return Ok(Bytes::new()),
                _ => {
                    let text = String::from_utf8_lossy(answer.body());
                    let code = element(&text, "Code").unwrap_or("unreadable");
                    let message = element(&text, "Message").unwrap_or_default();
                    return Err(refused("s3", code, message));
                }
            }
        }
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
        let uri = format!("{}/", self.endpoint);
        let answer = self.exchange("POST", &uri, service, headers, body).await?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    async fn exchange(
        &self,
        method: &str,
        uri: &str,
        service: &'static str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<http::Response<Bytes>, Error> {
        let failed = |error: &dyn std::error::Error| {
            refused(service, "unreachable", &crate::error::with_causes(error))
        };
        let mut request = http::Request::builder().method(method).uri(uri);
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
        answer
            .map_err(|_| refused(service, "unreachable", "no answer in time"))?
            .map_err(|error| failed(&error))
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

/// Returns the text of the first element of a name in an XML document without attributes in it.
#[cfg(feature = "http")]
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
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

/// All that a path of S3 has encoded: a key's slashes stay.
#[cfg(feature = "http")]
const OF_A_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Less than [`aws_cred_chain`]'s HTTP client reads of an answer.
#[cfg(feature = "http")]
const PART_BYTES: usize = 512 << 10;
/// Longer than a queue is waited at.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
