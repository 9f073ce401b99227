//! `/health`: whether the installation works, and if not, why. The leader reports it; another replica knows about itself
//! alone.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::Readiness;
use crate::{
    api::reason::Reason,
    domain::health::{HealthCause, HealthState},
};

/// What was reported last. Cheap to clone: all clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why the installation is not ready; none on a process that does not lead.
    reported: Arc<Mutex<Option<Vec<HealthCause>>>>,
}

impl Health {
    /// The leader reports why the installation is not ready: nothing, if it is.
    pub fn report(&self, causes: Vec<HealthCause>) {
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = Some(causes);
    }

    /// The state, and the page as JSON.
    pub(super) fn page(&self, readiness: &Readiness) -> (HealthState, String) {
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let role = if reported.is_some() { "leader" } else { "standby" };
        let closed = readiness.closed().into_iter().map(|(gate, why)| HealthCause {
            state: HealthState::Failed,
            reason: Reason::Waiting,
            count: 1,
            message: format!("this replica is not ready: {gate}: {why}"),
        });
        let causes: Vec<HealthCause> = closed.chain(reported.into_iter().flatten()).collect();
        let state = causes.iter().map(|cause| cause.state).max().unwrap_or_default();
        let shown: Vec<_> = causes
            .iter()
            .map(|cause| {
                json!({
                    "status": cause.state.as_str(),
                    "reason": cause.reason.as_str(),
                    "count": cause.count,
                    "message": cause.message,
                })
            })
            .collect();
        let page = json!({
            "status": state.as_str(),
            "role": role,
            "version": env!("CARGO_PKG_VERSION"),
            "causes": shown,
        });
        (state, format!("{page:#}\n"))
    }
}
