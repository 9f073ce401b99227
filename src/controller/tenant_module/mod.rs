//! TenantModules.

pub mod job;
