//! Leader election on a real API server.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod candidate;
mod loss;
mod takeover;
