//! The end of a login beside the tenant's login: of a previous one, after a rotation of the credentials or kept by an adoption,
//! and of a reader login.

use sqlx::Row;

use crate::{
    domain::placement::Placement,
    postgres::{
        error::{Error, Result},
        server::Server,
        session::connect::{ANSWER_LIMIT, with_timeout},
    },
};

/// The use of a login when it was ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastUse {
    /// The sessions that it had.
    pub sessions: i64,
    /// When one of them did something last, by the server; none if the operator may not read that.
    pub last_active: Option<String>,
    /// The `application_name` of that one.
    pub application: Option<String>,
}

impl LastUse {
    /// The last use, for an Event.
    pub fn describe(&self) -> String {
        let active = self
            .last_active
            .as_deref()
            .map_or("at an unknown time".to_owned(), |at| format!("active at {at}"));
        match self.application.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => format!("{active} (application_name {name:?})"),
            None => active,
        }
    }
}

const QUERY: &str = "\
SELECT count(*) OVER () AS sessions, to_char(state_change AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS last_active,
    application_name AS application
FROM pg_stat_activity WHERE usename = $1 ORDER BY state_change DESC NULLS LAST LIMIT 1";

impl Server {
    /// Whether the tenant's login exists. A role of that name that is not the tenant's is a conflict.
    pub async fn check_login(&self, placement: &Placement) -> Result<bool> {
        self.own_login(placement).await
    }

    /// Drops the logins beside the login of a tenant that is purged. A role of another owner under the name of one stays,
    /// and one that existed before the tenant stays without access.
    pub async fn drop_other_logins(&self, placement: &Placement) -> Result<()> {
        let others = [placement.of_previous_login(), placement.of_reader_login()];
        for other in others.into_iter().flatten() {
            self.retire_login(&other).await?;
            match self.drop_login(&other).await {
                Err(Error::Conflict { .. }) => {}
                dropped => dropped?,
            }
        }
        Ok(())
    }

    /// Takes all access from such a login (the login of this placement), ends its sessions, and drops it. What a role of
    /// that name has that is not the tenant's stays. If something depends on it, or if it existed before the tenant, it stays
    /// without access.
    pub async fn retire_login(&self, previous: &Placement) -> Result<LastUse> {
        match self.own_login(previous).await {
            Ok(true) => {}
            Ok(false) | Err(Error::Conflict { .. }) => return Ok(LastUse::default()),
            Err(error) => return Err(error),
        }
        let mut session = self.admin().await?;
        let query = sqlx::query(QUERY).bind(&previous.login).fetch_optional(&mut *session);
        let row = with_timeout(ANSWER_LIMIT, "read the sessions of a login", query).await?;
        session.release();
        let last_use = row.map(|row| -> Result<LastUse, sqlx::Error> {
            Ok(LastUse {
                sessions: row.try_get("sessions")?,
                last_active: row.try_get("last_active")?,
                application: row.try_get("application")?,
            })
        });
        let last_use = last_use.transpose().map_err(Error::sql("read the sessions of a login"))?;
        self.block_login(previous).await?;
        self.drop_unused_login(previous).await?;
        Ok(last_use.unwrap_or_default())
    }
}
