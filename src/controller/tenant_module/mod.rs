//! The controller of `TenantModule`: reads the sources, has new content checked and rehearsed, offers accepted content to the
//! tenants, and brings existing tenants up. Runs of an application's own tool have their parts here too.

mod built_in;
pub mod content;
pub mod image;
pub mod job;
pub mod job_state;
pub mod reconcile;
mod rehearsal;
pub mod run;
pub mod runs;
mod source;
mod status;
pub mod template_run;
pub mod wake;
