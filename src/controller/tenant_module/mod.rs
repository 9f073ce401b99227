//! The controller of `TenantModule`: reads the sources, has new content checked and rehearsed, offers accepted content to the
//! tenants, and brings existing tenants up.

mod built_in;
pub mod content;
pub mod reconcile;
mod rehearsal;
mod source;
mod status;
pub mod wake;
