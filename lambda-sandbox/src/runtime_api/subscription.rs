//! A subscription to telemetry, as an extension asks for it.

use std::time::Duration;

use serde_json::Value;

/// Where an event comes from, which is what subscriptions choose by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Platform,
    Function,
    Extension,
}

impl Source {
    pub(super) const ALL: [(Self, &'static str); 3] = [
        (Self::Platform, "platform"),
        (Self::Function, "function"),
        (Self::Extension, "extension"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The API by which an extension subscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// `PUT /2022-07-01/telemetry`.
    Telemetry,
    /// `PUT /2020-08-15/logs`.
    Logs,
}

impl Api {
    /// Returns whether the API has events of this kind: the Logs API has none of inits.
    pub(super) fn has(self, kind: &str) -> bool {
        match self {
            Self::Telemetry => true,
            Self::Logs => !kind.starts_with("platform.init"),
        }
    }
}

/// What an extension asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(super) api: Api,
    /// The extension's name.
    pub(super) extension: String,
    /// Whether events of each [`Source`] are wanted.
    pub(super) types: [bool; 3],
    pub(super) max_items: usize,
    pub(super) max_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) destination: Destination,
}

/// Where events go, in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    Http { port: u16, host: String, path: String, method: &'static str },
    Tcp { port: u16 },
}

impl Subscription {
    /// Reads a request's body. The error is for the extension.
    pub(super) fn parse(api: Api, body: &[u8]) -> Result<Self, String> {
        let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let asked = body["types"].as_array().ok_or("types: a list is due")?;
        let mut types = [false; 3];
        for name in asked {
            let known = Source::ALL.iter().find(|(_, known)| name == known);
            let (source, _) = known.ok_or_else(|| format!("types: {name} is unknown"))?;
            types[*source as usize] = true;
        }
        if asked.is_empty() {
            return Err("types: at least one is due".to_owned());
        }
        let buffering = &body["buffering"];
        let within = |name: &str, usual: u64, [least, most]: [u64; 2]| match &buffering[name] {
            Value::Null => Ok(usual),
            value => value
                .as_u64()
                .filter(|it| (least..=most).contains(it))
                .ok_or_else(|| format!("buffering.{name}: {least} to {most}")),
        };
        let max_items = within("maxItems", 10_000, [1000, 10_000])?;
        let max_bytes = within("maxBytes", 262_144, [262_144, 1_048_576])?;
        let timeout_ms = within("timeoutMs", 1000, [25, 30_000])?;
        Ok(Self {
            api,
            extension: String::new(),
            types,
            max_items: usize::try_from(max_items).unwrap_or(usize::MAX),
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            timeout: Duration::from_millis(timeout_ms),
            destination: Destination::parse(&body["destination"])?,
        })
    }

    pub(super) fn type_names(&self) -> Vec<&'static str> {
        let wanted = Source::ALL.iter().filter(|(source, _)| self.types[*source as usize]);
        wanted.map(|(_, name)| *name).collect()
    }
}

impl Destination {
    fn parse(value: &Value) -> Result<Self, String> {
        let port_due = "destination.port: 1 to 65535";
        match value["protocol"].as_str() {
            Some("TCP") => {
                let port = value["port"].as_u64().and_then(|it| u16::try_from(it).ok());
                let port = port.filter(|it| *it != 0).ok_or(port_due)?;
                Ok(Self::Tcp { port })
            }
            Some("HTTP") => {
                let uri = value["URI"].as_str().ok_or("destination.URI: a text is due")?;
                let uri: hyper::Uri =
                    uri.parse().map_err(|error| format!("destination.URI: {error}"))?;
                let host = uri.host().unwrap_or_default();
                // The host connects to the sandbox's loopback, and nowhere else.
                if uri.scheme_str() != Some("http") || !HOSTS.contains(&host) {
                    return Err(format!("destination.URI: http and a host of {HOSTS:?}"));
                }
                let port = uri.port_u16().filter(|it| *it != 0).unwrap_or(80);
                let method = match value["method"].as_str() {
                    None | Some("POST") => "POST",
                    Some("PUT") => "PUT",
                    Some(_) => return Err("destination.method: POST or PUT".to_owned()),
                };
                let path = uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
                let host = format!("{host}:{port}");
                Ok(Self::Http { port, host, path, method })
            }
            _ => Err("destination.protocol: HTTP or TCP".to_owned()),
        }
    }
}

/// The names of the sandbox itself.
const HOSTS: [&str; 4] = ["sandbox.localdomain", "sandbox", "localhost", "127.0.0.1"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn subscriptions_are_checked() {
        let http = json!({ "protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/a?b" });
        let good = json!({ "schemaVersion": "2022-07-01", "types": ["platform", "function"],
            "buffering": { "maxItems": 1000, "timeoutMs": 25 }, "destination": http });
        let parsed = Subscription::parse(Api::Telemetry, good.to_string().as_bytes()).unwrap();
        assert_eq!((parsed.types, parsed.max_items), ([true, true, false], 1000));
        assert_eq!((parsed.max_bytes, parsed.timeout), (262_144, Duration::from_millis(25)));
        let host = "sandbox.localdomain:8080".to_owned();
        let path = "/a?b".to_owned();
        let expected = Destination::Http { port: 8080, host, path, method: "POST" };
        assert_eq!(parsed.destination, expected);
        for (pointer, value) in [
            ("/types", json!([])),
            ("/types", json!(["other"])),
            ("/types", Value::Null),
            ("/buffering/maxItems", json!(999)),
            ("/buffering/timeoutMs", json!(30_001)),
            ("/buffering/timeoutMs", json!("25")),
            ("/destination/protocol", json!("UDP")),
            ("/destination/URI", json!("http://example.com:80/")),
            ("/destination/URI", json!("https://sandbox:80/")),
            ("/destination/URI", json!("http://sandbox:80/\r\nX: y")),
        ] {
            let mut body = good.clone();
            *body.pointer_mut(pointer).unwrap() = value.clone();
            let parsed = Subscription::parse(Api::Telemetry, body.to_string().as_bytes());
            assert!(parsed.is_err(), "{pointer} {value}");
        }
        let tcp = json!({ "types": ["function"], "destination": { "protocol": "TCP", "port": 0 } });
        assert!(Subscription::parse(Api::Logs, tcp.to_string().as_bytes()).is_err());
    }
}
