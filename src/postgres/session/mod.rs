//! Sessions on a server: how they are opened, pooled, capped and ended.

pub(in crate::postgres) mod connect;
pub(in crate::postgres) mod migrator;
pub(in crate::postgres) mod pool;
