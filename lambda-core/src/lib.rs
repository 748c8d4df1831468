//! Placement engine for functions as a service: pure, deterministic, explainable.
#![forbid(unsafe_code)]
