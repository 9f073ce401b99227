//! Sessions on a server: how they are opened, pooled, capped and ended.

pub(in crate::postgres) mod blocked;
pub(in crate::postgres) mod blockers;
mod closing;
pub(in crate::postgres) mod connect;
pub(in crate::postgres) mod detour;
pub(in crate::postgres) mod lock_watch;
pub(in crate::postgres) mod migrator;
pub(in crate::postgres) mod pool;
pub(in crate::postgres) mod prepared;
mod slots;
pub(in crate::postgres) mod standing;
