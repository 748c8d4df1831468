//! Joins the placement engine, sandboxes and the AWS Lambda HTTP API into a host.
#![forbid(unsafe_code)]
