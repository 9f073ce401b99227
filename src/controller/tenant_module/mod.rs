//! TenantModules.

pub mod job;
pub mod job_state;
pub mod run;
