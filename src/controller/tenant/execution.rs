//! What the phase of execution works with.

use super::status_writer::StatusWriter;
use crate::{
    api::tenant_status::WorkflowKind,
    controller::context::SharedContext,
    domain::{subject::Subject, workflow::attempt::Progress},
    postgres::server::Server,
};

/// What is executed, and for whom.
pub struct Execution<'a, 'c> {
    /// The tenant.
    pub subject: Subject<'a>,
    /// What was done before in this reconcile.
    pub progress: Progress,
    /// The kind of workflow that the steps are.
    pub kind: WorkflowKind,
    /// More steps follow that cannot be planned yet: the workflow does not end with these.
    pub again: bool,
    /// The tenant's server, while it is ready.
    pub server: Option<Server>,
    /// Everything else.
    pub context: &'c SharedContext,
    /// Where progress is shown.
    pub status: &'c mut StatusWriter,
}
