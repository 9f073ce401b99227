//! Fault injection between an operator and its servers: a proxy for a real PostgreSQL server and one for a real API
//! server.
//!
//! Both proxies forward everything to the real servers; the only answers of their own are the refusals that a test
//! requests. Together they count the operator's effects ([`Effects`]) and can stop it right before or right after one of
//! them. Each can refuse, hang or delay connections and requests ([`Fault`], [`ApiFault`]).
//!
//! They run on threads of their own, so that a test can use them from any runtime.

mod api;
mod effects;
mod fault;
mod listener;
mod postgres;
mod protocol;
mod writes;

pub use api::{ApiProxy, ApiTotals};
pub use effects::{Effect, EffectKind, Effects, Moment};
pub use fault::{ApiFault, Fault};
pub use postgres::{PostgresProxy, PostgresTotals};
pub use protocol::Statement;
pub use writes::Write;

use kube::Config;

use crate::error::Result;

/// The two proxies of one operator, with one count of effects.
#[derive(Debug)]
pub struct Interposer {
    effects: Effects,
    postgres: PostgresProxy,
    api: ApiProxy,
}

impl Interposer {
    /// Starts both: for the PostgreSQL server on this port of 127.0.0.1, and for this cluster with the rights of this
    /// configuration.
    pub fn start(postgres: u16, cluster: Config) -> Result<Self> {
        let effects = Effects::new();
        let (postgres, api) =
            (PostgresProxy::start(postgres, &effects)?, ApiProxy::start(cluster, &effects)?);
        Ok(Self { effects, postgres, api })
    }

    /// The effects of the operator that pass through the proxies.
    pub fn effects(&self) -> &Effects {
        &self.effects
    }

    /// The proxy for PostgreSQL.
    pub fn postgres(&self) -> &PostgresProxy {
        &self.postgres
    }

    /// The proxy for the API server.
    pub fn api(&self) -> &ApiProxy {
        &self.api
    }
}
