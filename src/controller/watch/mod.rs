//! The watches, and which reconciles a change requests.

pub mod accounts;
pub mod decode;
pub mod follow;
pub mod guarded;
mod json_path;
pub mod modules;
pub mod plans;
pub mod ready;
pub mod requeue;
pub mod secrets;
pub mod source;
