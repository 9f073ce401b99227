//! The standing session: one admin session per server that stays open for good. While the locks of a tenant keep everybody
//! from connecting, the operator still reaches the server through it, and ends the sessions that hold them.

use std::ops::{Deref, DerefMut};

use sqlx::PgConnection;
use tokio::sync::MutexGuard;

use crate::postgres::error::Result;

use super::{
    connect::{ConnectAs, MAINTENANCE_DATABASE, connect_to},
    pool::{Sessions, StandingConnection},
};

/// The standing session in use. When it is dropped before [`Self::keep`], it is closed, and the next use opens another one.
pub(in crate::postgres) struct StandingSession<'a> {
    place: MutexGuard<'a, Option<StandingConnection>>,
    open: StandingConnection,
}

impl Sessions {
    /// The standing session, opened if it is lost.
    pub(in crate::postgres) async fn standing(&self) -> Result<StandingSession<'_>> {
        let mut place = self.standing.lock().await;
        self.check_fence()?;
        let open = match place.take() {
            Some(open) => open,
            None => {
                let options = self.config.options(&ConnectAs::Admin(MAINTENANCE_DATABASE));
                let connection = connect_to(&self.config, &options, "open the standing session").await?;
                StandingConnection { connection, is_verified: false }
            }
        };
        self.verified(place, open).await
    }

    /// The standing session, if it is open.
    pub(super) async fn standing_if_open(&self) -> Result<Option<StandingSession<'_>>> {
        let mut place = self.standing.lock().await;
        self.check_fence()?;
        match place.take() {
            Some(open) => self.verified(place, open).await.map(Some),
            None => Ok(None),
        }
    }

    async fn verified<'a>(
        &self,
        place: MutexGuard<'a, Option<StandingConnection>>,
        mut open: StandingConnection,
    ) -> Result<StandingSession<'a>> {
        if !open.is_verified {
            self.check_identifier(&mut open.connection).await?;
            open.is_verified = self.identifier.get().is_some();
        }
        Ok(StandingSession { place, open })
    }
}

impl StandingSession<'_> {
    /// Keeps the session open: it answered.
    pub(in crate::postgres) fn keep(mut self) {
        *self.place = Some(self.open);
    }
}

impl Deref for StandingSession<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.open.connection
    }
}

impl DerefMut for StandingSession<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.open.connection
    }
}
