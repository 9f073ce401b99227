//! What PostgreSQL's catalogs show: databases, roles and ownership comments.

pub mod excess;
pub mod inventory;
pub(in crate::postgres) mod ownership;
pub(in crate::postgres) mod rights;
pub(in crate::postgres) mod snapshot;
pub(in crate::postgres) mod structure;
pub(in crate::postgres) mod takeover;
