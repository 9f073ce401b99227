//! How long the registry keeps what grows.

/// How long, and how much of it per tenant. `None`: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days for which a workflow is kept that succeeded at its first attempt, or was superseded.
    pub workflow_days: Option<i32>,
    /// Days for which a workflow is kept that failed, or of which an attempt failed.
    pub failed_workflow_days: Option<i32>,
    /// The number of workflows of each of these two kinds that one tenant keeps.
    pub workflows_per_tenant: Option<i32>,
    /// Days after which activity is moved to the archive.
    pub activity_days: Option<i32>,
    /// The number of activity rows of one tenant that are not in the archive.
    pub activity_per_tenant: Option<i32>,
    /// Days of which the usage is kept.
    pub usage_days: Option<i32>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            workflow_days: Some(30),
            failed_workflow_days: Some(180),
            workflows_per_tenant: Some(200),
            activity_days: Some(400),
            activity_per_tenant: Some(2000),
            usage_days: Some(800),
        }
    }
}
