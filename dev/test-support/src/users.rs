//! Users of the cluster, and what the registry recorded of them.

use kube::Client;
use serde_json::Value;
use sqlx::PgConnection;
use tenantry_dev::ControlPlane;

use crate::Fleet;

/// A row of the activity log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedActivity {
    /// What was done.
    pub action: String,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// Further facts.
    pub details: Value,
}

impl Fleet {
    /// The same tenants, by a client that impersonates this user, with the rights of the cluster's administrator.
    pub async fn by(&self, plane: &ControlPlane, user: &str) -> Self {
        let mut config = plane.config().await.unwrap();
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
        let client = Client::try_from(config).unwrap();
        Self::of(client, self.tenants.namespace().unwrap(), self.log().to_owned())
    }
}

/// The activity of the tenants that have or had this slug, the oldest first.
pub async fn activity(registry: &mut PgConnection, slug: &str) -> Vec<LoggedActivity> {
    let rows: Vec<(String, String, Option<String>, Value)> = sqlx::query_as(
        "SELECT action, actor, reason, details FROM activity JOIN tenants t ON t.id = tenant_id
         WHERE t.slug = $1 ORDER BY activity.id",
    )
    .bind(slug)
    .fetch_all(registry)
    .await
    .unwrap();
    let logged = |(action, actor, reason, details)| LoggedActivity { action, actor, reason, details };
    rows.into_iter().map(logged).collect()
}

/// The actors of these actions, in their order.
pub fn actors(activity: &[LoggedActivity], actions: &[&str]) -> Vec<(String, String)> {
    let found = activity.iter().filter(|row| actions.contains(&row.action.as_str()));
    found.map(|row| (row.action.clone(), row.actor.clone())).collect()
}
