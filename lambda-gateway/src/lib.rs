//! HTTP front doors of functions, in the formats of AWS: function URLs, HTTP APIs, REST APIs and
//! WebSocket APIs.
//!
//! A front door turns a request into the event that web frameworks for Lambda read, and a
//! function's answer into a response. [`Gateway`] joins that with routes, CORS, rates, authorizers
//! and access logs. This crate knows neither an HTTP server nor what runs functions: a server gives
//! it a [`Request`] and its [`Arrival`], and [`Functions`] invokes.
//!
//! ```
//! # use std::sync::Arc;
//! # use lambda_gateway::{Answer, Arrival, Call, Definition, Functions, Gateway, Invoking, Request};
//! #[derive(Debug)]
//! struct Hello;
//! impl Functions for Hello {
//!     fn invoke(&self, _: Call) -> Invoking<'_> {
//!         Box::pin(async { Ok(Answer::new(r#"{"statusCode":200,"body":"hello"}"#, false)) })
//!     }
//! }
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let file = r#"{"apis":[{"kind":"http","routes":[{"route":"GET /pets/{id}","function":"pets"}]}]}"#;
//! let gateway = Gateway::new(Definition::from_json(file)?, Arc::new(Hello));
//! let arrival = Arrival::new(0, "127.0.0.1".parse()?, "a-request-id");
//! let handled = gateway.handle(&Request::new("GET", "/pets/7"), &arrival).await;
//! assert_eq!((handled.response.status, &handled.response.body[..]), (200, &b"hello"[..]));
//! # Ok(()) }
//! # let waker = std::task::Waker::noop();
//! # let mut future = std::pin::pin!(run());
//! # assert!(matches!(future.as_mut().poll(&mut std::task::Context::from_waker(waker)), std::task::Poll::Ready(Ok(()))));
//! ```
//!
//! # Features
//!
//! - `jwt`: JWT authorizers of HTTP APIs. The keys of issuers are fetched through [`Documents`].
//! - `websocket`: WebSocket APIs: [`Gateway::open`] answers a handshake, and [`Session::run`]
//!   serves the connection in a runtime of tokio.
//! - `yaml`: definitions in YAML, with CloudFormation's short tags.
#![forbid(unsafe_code)]

mod access_log;
mod answer;
mod api;
mod authorizer;
mod cors;
mod date;
mod definition;
mod documents;
mod encoding;
mod error;
mod event;
mod functions;
mod gateway;
mod headers;
mod kind;
mod pattern;
mod request;
mod response;
mod route;
mod selection;
mod throttle;
#[cfg(feature = "websocket")]
mod websocket;

pub use access_log::{AccessLog, AccessLogFormat};
pub use api::{Api, Route, Stage};
pub use authorizer::jwt::JwtAuthorizer;
pub use authorizer::{Authorizer, AuthorizerKind, IdentitySource};
pub use cors::Cors;
pub use definition::Definition;
pub use documents::{Document, Documents, Fetching, Unfetched};
pub use error::Error;
pub use functions::{Answer, Call, Functions, InvokeError, Invoking};
pub use gateway::{Gateway, Handled, handle_function_url};
pub use kind::{Kind, Payload};
pub use pattern::Pattern;
pub use request::{Arrival, Request};
pub use response::{Refusal, Response};
pub use selection::RouteSelection;
pub use throttle::{Bucket, Throttle};
#[cfg(feature = "websocket")]
pub use websocket::{Opened, Session, SessionHost};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
