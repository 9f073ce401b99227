//! Who deleted an object, as the webhook recorded it: read by the statement that records what the deletion led to.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Registry, Result};

/// For how many days a row is kept that nothing used: an operator that is stopped for longer names no one.
const DAYS: i32 = 30;

/// An object whose deletion is the cause of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedObject {
    /// Its uid.
    pub uid: String,
    /// When the API server marked it as deleted; none: it does not exist any more.
    pub at: Option<Timestamp>,
}

impl DeletedObject {
    /// The object with this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            at: metadata.deletion_timestamp.as_ref().map(|at| at.0),
        }
    }

    /// When it was deleted, as a parameter.
    pub(super) fn time(&self) -> Option<jiff_sqlx::Timestamp> {
        self.at.map(|at| at.to_sqlx())
    }
}

/// The condition that a row of `deletion_actors` is about the deletion of the object with this uid at this time. A record that
/// is not of that time is of a request that was refused; the clocks may differ.
macro_rules! is_of_deletion {
    ($uid:literal, $at:literal) => {
        concat!(
            "object_uid = ",
            $uid,
            " AND (",
            $at,
            "::timestamptz IS NULL OR at BETWEEN ",
            $at,
            "::timestamptz - interval '5 min' AND ",
            $at,
            "::timestamptz + interval '5 min')"
        )
    };
}
pub(super) use is_of_deletion;

impl Registry {
    /// Removes records of deletions that nothing used.
    pub async fn remove_outdated_deletions(&self) -> Result<()> {
        sqlx::query("DELETE FROM deletion_actors WHERE at < now() - make_interval(days => $1)")
            .bind(DAYS)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
