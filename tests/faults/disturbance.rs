//! One disturbance at an effect, of which the tests go through all: the operator is killed, or its servers are away.

use tenantry_dev::{Stop, interposer::Moment, process::Signal};
use tenantry_test_support::{PATIENCE, World};

/// What happens at an effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disturbance {
    /// The operator is killed, and started again.
    Kill,
    /// Its connections to PostgreSQL and to the API server are cut, without an answer to the effect, PostgreSQL crashes, and
    /// both are reachable again once it has recovered. The operator runs on.
    Outage,
}

/// Waits for what settles, while the operator is killed at this effect, looked at while it is dead, and started again.
/// Returns the effect, or none if there were fewer.
pub async fn killed_at(
    world: &World,
    point: Option<(usize, Moment)>,
    settled: impl Future<Output = ()>,
    look: impl AsyncFnOnce(),
) -> Option<String> {
    disturbed_at(world, Disturbance::Kill, point, settled, look).await
}

/// Waits for what settles, while the operator is disturbed at this effect. It is looked at before the operator works again.
/// Returns the effect, or none if there were fewer.
pub async fn disturbed_at(
    world: &World,
    disturbance: Disturbance,
    point: Option<(usize, Moment)>,
    settled: impl Future<Output = ()>,
    look: impl AsyncFnOnce(),
) -> Option<String> {
    let effects = world.installation.interposer().unwrap().effects();
    effects.reset();
    if let Some((number, moment)) = point {
        let process = world.installation.operator().service().record().unwrap();
        effects.arm(number, moment, move || async move {
            if disturbance == Disturbance::Kill {
                process.signal(Signal::KILL).unwrap();
            }
        });
    }
    tokio::pin!(settled);
    let mut is_settled = false;
    let struck = tokio::select! {
        effect = effects.triggered() => Some(effect),
        () = &mut settled => {
            is_settled = true;
            // The last effect may be observed before its disturbance.
            match point {
                Some(_) if !effects.disarm() => Some(effects.triggered().await),
                _ => None,
            }
        }
    };
    let Some(effect) = struck else {
        effects.reset();
        return None;
    };
    match disturbance {
        Disturbance::Kill => {
            assert!(world.installation.operator().service().exits_within(PATIENCE).await);
            look().await;
            effects.reset();
            world.delete_lease().await;
            world.installation.operator().start().await.unwrap();
        }
        Disturbance::Outage => {
            let postgres = world.installation.postgres();
            postgres.stop(Stop::Immediate).await.unwrap();
            postgres.start_again().await.unwrap();
            look().await;
            effects.reset();
        }
    }
    if !is_settled {
        settled.await;
    }
    Some(effect.what.clone())
}
