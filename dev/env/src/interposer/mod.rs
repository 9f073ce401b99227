//! What stands between an operator and its servers, so that a test can disturb what they say to each other: a proxy in
//! front of a real PostgreSQL and one in front of a real API server.
//!
//! Both forward everything to the real servers, and fake no answer but a refusal that was asked for. Together they count
//! what the operator does ([`Effects`]) and can stop it right before or right after one of those; each of them can be
//! made to refuse, hang or delay ([`Trouble`], [`ApiTrouble`]).
//!
//! They run on threads of their own, so a test may use them from any runtime.

mod api;
mod door;
mod effects;
mod messages;
mod postgres;
mod trouble;
mod writes;

pub use api::{ApiProxy, ApiTotals};
pub use effects::{Effect, EffectKind, Effects, Moment};
pub use messages::Statement;
pub use postgres::{PostgresProxy, PostgresTotals};
pub use trouble::{ApiTrouble, Trouble};
pub use writes::Write;

use kube::Config;

use crate::error::Result;

/// Both proxies, around one operator, with one count of effects.
#[derive(Debug)]
pub struct Interposer {
    effects: Effects,
    postgres: PostgresProxy,
    api: ApiProxy,
}

impl Interposer {
    /// Starts both: in front of the PostgreSQL server on this port of 127.0.0.1, and of this cluster, with the rights of
    /// this configuration.
    pub fn start(postgres: u16, cluster: Config) -> Result<Self> {
        let effects = Effects::new();
        let (postgres, api) =
            (PostgresProxy::start(postgres, &effects)?, ApiProxy::start(cluster, &effects)?);
        Ok(Self { effects, postgres, api })
    }

    /// What goes through either of them and changes something.
    pub fn effects(&self) -> &Effects {
        &self.effects
    }

    /// The one in front of PostgreSQL.
    pub fn postgres(&self) -> &PostgresProxy {
        &self.postgres
    }

    /// The one in front of the API server.
    pub fn api(&self) -> &ApiProxy {
        &self.api
    }
}
