//! The plan of a tenant that lives: made, kept, repaired, brought back, or taken back.

use super::{Blocked, ObjectFacts, Plan};
use crate::{
    api::tenant_status::WorkflowKind,
    domain::{
        access::AccessLevel,
        observed::{
            BuildingFacts, DatabaseFacts, LoginFacts, Observation, Observed, RegistryFacts, RegistryStatus,
            SecretFacts, ServerFacts,
        },
        steps::Step,
    },
};

/// What a Tenant that lives should be, as far as planning needs it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Digest of its seed.
    pub seed_digest: &'a str,
    /// What it may do.
    pub access: AccessLevel,
    /// The most sessions of its login, as PostgreSQL has it: -1 for no limit.
    pub connections: i32,
    /// `Trial`, `Active` or `Suspended`.
    pub state: RegistryStatus,
}

/// Plans for a Tenant that lives, with a valid spec.
pub fn plan_living(object: ObjectFacts, wanted: Wanted<'_>, observed: &Observed) -> Plan {
    let row = match &observed.registry {
        Observation::Unknown(why) => return Plan::Blocked(Blocked::RegistryUnknown(why.clone())),
        // Provisioned anew it would be another tenant, without this one's data.
        Observation::Absent if object.was_registered => return Plan::Blocked(Blocked::RowMissing),
        Observation::Absent if object.paused => return Plan::Blocked(Blocked::Paused),
        Observation::Absent => {
            // Nothing of a new tenant is anywhere before its server has passed the preflight.
            if let Observation::Unknown(why) = &observed.server {
                return Plan::Blocked(Blocked::ServerUnknown(why.clone()));
            }
            let mut steps = Vec::new();
            if !object.has_finalizer {
                steps.push(Step::ClaimFinalizer);
            }
            steps.push(Step::Register);
            return Plan::Run { kind: WorkflowKind::Provision, steps, again: true };
        }
        Observation::Known(row) => row,
    };
    let returning = row.status == RegistryStatus::Deprovisioning;
    if row.status == RegistryStatus::Deprovisioned || returning && row.purging {
        return Plan::Blocked(Blocked::RowGone(row.status));
    }
    if object.paused && (returning || row.rolling_back) {
        return Plan::Blocked(Blocked::Paused);
    }
    let undelete = |steps, again| Plan::Run { kind: WorkflowKind::Undelete, steps, again };
    let server = match &observed.server {
        Observation::Known(facts) => facts,
        // The registry can be told at once, and the clock of the purge stops.
        Observation::Unknown(_) | Observation::Absent if returning => {
            return undelete(vec![Step::Reinstate], true);
        }
        Observation::Unknown(why) => return Plan::Blocked(Blocked::ServerUnknown(why.clone())),
        Observation::Absent => {
            return Plan::Blocked(Blocked::ServerUnknown("the server was not asked".into()));
        }
    };
    if row.rolling_back {
        return roll_back(row, server);
    }
    let handed_out = row.status.was_active() || returning && row.handed_out;
    match server.database {
        DatabaseFacts::Foreign => return Plan::Blocked(Blocked::ForeignDatabase),
        DatabaseFacts::Absent if handed_out && !returning => return Plan::Blocked(Blocked::DatabaseMissing),
        // It is missed once the tenant is back: until then nothing is lost that a tombstone does not account for.
        DatabaseFacts::Absent if handed_out => return undelete(vec![Step::Reinstate], true),
        DatabaseFacts::Absent | DatabaseFacts::Ours => {}
    }
    if server.login == LoginFacts::Foreign {
        return Plan::Blocked(Blocked::ForeignLogin);
    }
    let published = server.database == DatabaseFacts::Ours;
    let create = !published && server.building != BuildingFacts::Ready;
    let (can_login, access_current, connections_current) = match server.login {
        LoginFacts::Ours { can_login, access_current, connections } => {
            (can_login, access_current, connections == wanted.connections)
        }
        LoginFacts::Absent | LoginFacts::Foreign => (false, false, false),
    };
    // While it is Blocked, a login has its password and not LOGIN.
    let blocked = wanted.access == AccessLevel::Blocked;
    let credentials_current =
        row.has_verifier && (can_login || blocked) && observed.connection_secret == SecretFacts::Current;
    let enforce = !published || !access_current || !row.access_recorded;

    // Each step with the observation that asks for it, in the order in which they are run.
    let apply_plan = create || !row.plan_current || !connections_current;
    let seed = create || row.seed_digest.as_deref() != Some(wanted.seed_digest);
    let asked = [
        (Step::ClaimFinalizer, !object.has_finalizer),
        (Step::Reinstate, returning),
        (Step::Register, !row.declared_current),
        (Step::CreateRoles, server.login == LoginFacts::Absent),
        (Step::CreateDatabase, create),
        // A migration can be held off, by a lock of the tenant's or by a mistake of its own: where there are limits
        // already, it holds off no others.
        (Step::ApplyPlan, apply_plan && row.plan_recorded && !create),
        (Step::ApplyMigrations, create || !row.modules_current),
        // Before the seed: who is added with a larger plan has a place in it.
        (Step::ApplyPlan, apply_plan && !row.plan_recorded && !create),
        (Step::Seed, seed && !handed_out),
        // The seed of a database that was just made puts the limits there as well, in the one session that it needs.
        (Step::ApplyPlan, create),
        (Step::PublishDatabase, !published),
        (Step::EnforceAccess, enforce),
        // The Secret says what the plan gives, for gateways.
        (Step::PublishCredentials, !credentials_current || !row.plan_current),
        (Step::Verify, !handed_out || !credentials_current || object.unverified),
        (Step::Activate, !handed_out),
        (Step::RecordState, handed_out && (returning || !row.state_current)),
        // Of a tenant in use, last: an admin for whom there is no room keeps nobody from access and credentials.
        (Step::Seed, seed && handed_out),
    ];
    let steps: Vec<Step> = asked.into_iter().filter(|(_, asked)| *asked).map(|(step, _)| step).collect();
    if steps.is_empty() {
        return Plan::Nothing;
    }
    // A paused tenant that needs nothing is as good as any other; one that needs work waits.
    if object.paused {
        return Plan::Blocked(Blocked::Paused);
    }
    let kind = match (returning, handed_out) {
        (true, _) => WorkflowKind::Undelete,
        (false, false) => WorkflowKind::Provision,
        (false, true) => kind_of_change(wanted, row, &steps),
    };
    // What is to be taken is taken first: nothing else on the way there may fail or take long, and a tenant can make it
    // do both.
    let narrows = row.recorded_access.map_or(blocked, |recorded| wanted.access < recorded);
    let is_there = published && matches!(server.login, LoginFacts::Ours { .. });
    if handed_out && !returning && is_there && narrows {
        let takes =
            |step: &Step| matches!(step, Step::ClaimFinalizer | Step::EnforceAccess | Step::RecordState);
        let (first, rest): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(takes);
        return Plan::Run { kind: WorkflowKind::Suspend, steps: first, again: !rest.is_empty() };
    }
    Plan::Run { kind, steps, again: false }
}

/// What the work on a tenant in use is for.
fn kind_of_change(wanted: Wanted<'_>, row: &RegistryFacts, steps: &[Step]) -> WorkflowKind {
    let narrows = row.recorded_access.is_none_or(|recorded| wanted.access < recorded);
    let suspended = RegistryStatus::Suspended;
    match steps.contains(&Step::RecordState) || !row.access_recorded {
        true if narrows && wanted.state == suspended => WorkflowKind::Suspend,
        true if row.status == suspended => WorkflowKind::Resume,
        true => WorkflowKind::Update,
        false if !row.plan_current => WorkflowKind::ChangePlan,
        false if steps.iter().any(|step| matches!(step, Step::Register | Step::Seed)) => WorkflowKind::Update,
        false => WorkflowKind::Repair,
    }
}

/// Takes back what a failed first provisioning made. What was ever handed out is never rolled back: the registry
/// refuses even to note it.
fn roll_back(row: &RegistryFacts, server: &ServerFacts) -> Plan {
    let login_ours = matches!(server.login, LoginFacts::Ours { .. });
    let database_ours = server.database == DatabaseFacts::Ours || server.building != BuildingFacts::Absent;
    let wanted = [
        (Step::CutAccess, login_ours),
        (Step::DropDatabase, database_ours || row.database_recorded),
        (Step::DropRoles, login_ours),
        (Step::RemoveSecrets, true),
        (Step::RecordRollback, true),
    ];
    let steps = wanted.into_iter().filter(|(_, asked)| *asked).map(|(step, _)| step).collect();
    Plan::Run { kind: WorkflowKind::Rollback, steps, again: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::fixtures::*;

    /// The same with another seed.
    const OTHER: Wanted<'_> = Wanted { seed_digest: "other", ..WANTED };

    #[test]
    fn a_new_tenant_is_claimed_and_registered_before_anything_else() {
        let nothing = Observed {
            registry: Observation::Absent,
            server: Observation::Absent,
            connection_secret: SecretFacts::Absent,
        };
        let plan = plan_living(ObjectFacts { has_finalizer: false, ..OBJECT }, WANTED, &nothing);
        assert_eq!(
            plan,
            Plan::Run {
                kind: WorkflowKind::Provision,
                steps: vec![Step::ClaimFinalizer, Step::Register],
                again: true
            }
        );
    }

    #[test]
    fn a_tenant_that_was_registered_is_not_made_anew_without_its_row() {
        let mut observed = registered();
        observed.registry = Observation::Absent;
        let object = ObjectFacts { was_registered: true, ..OBJECT };
        assert_eq!(plan_living(object, WANTED, &observed), Plan::Blocked(Blocked::RowMissing));
    }

    #[test]
    fn a_new_tenant_is_not_even_claimed_before_its_server_is_ready() {
        let waiting = Observed {
            registry: Observation::Absent,
            server: Observation::Unknown("not ready".into()),
            connection_secret: SecretFacts::Absent,
        };
        let object = ObjectFacts { has_finalizer: false, ..OBJECT };
        let wait = Plan::Blocked(Blocked::ServerUnknown("not ready".into()));
        assert_eq!(plan_living(object, WANTED, &waiting), wait);
    }

    #[test]
    fn a_registered_tenant_is_built_and_activated_last() {
        assert_eq!(
            steps(plan_living(OBJECT, WANTED, &registered())),
            [
                Step::CreateRoles,
                Step::CreateDatabase,
                Step::ApplyMigrations,
                Step::Seed,
                Step::ApplyPlan,
                Step::PublishDatabase,
                Step::EnforceAccess,
                Step::PublishCredentials,
                Step::Verify,
                Step::Activate,
            ]
        );
    }

    #[test]
    fn steady_state_plans_nothing() {
        assert_eq!(plan_living(OBJECT, WANTED, &whole(RegistryStatus::Active)), Plan::Nothing);
    }

    #[test]
    fn a_database_cut_off_while_being_built_is_seeded_again() {
        let mut observed = registered();
        observed.server = Observation::Known(ServerFacts {
            database: DatabaseFacts::Absent,
            building: BuildingFacts::Incomplete,
            login: LoginFacts::Ours { can_login: false, access_current: false, connections: -1 },
        });
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        (row.seed_digest, row.modules_current) = (Some("seed".into()), true);
        let steps = steps(plan_living(OBJECT, WANTED, &observed));
        // With the limits, of which nothing is there either, once.
        let made = [Step::CreateDatabase, Step::Seed, Step::ApplyPlan];
        let kept: Vec<Step> = steps.into_iter().filter(|step| made.contains(step)).collect();
        assert_eq!(kept, made);
    }

    #[test]
    fn a_provisioning_that_failed_goes_on_at_the_step_that_failed() {
        let mut observed = registered();
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        row.modules_current = true;
        observed.server = Observation::Known(ServerFacts {
            database: DatabaseFacts::Absent,
            building: BuildingFacts::Ready,
            login: LoginFacts::Ours { can_login: false, access_current: false, connections: -1 },
        });
        assert_eq!(steps(plan_living(OBJECT, WANTED, &observed))[0], Step::Seed);
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        (row.plan_current, row.plan_recorded) = (false, false);
        assert_eq!(steps(plan_living(OBJECT, WANTED, &observed))[..2], [Step::ApplyPlan, Step::Seed]);
    }

    #[test]
    fn a_lost_database_is_reported_never_made_again() {
        let mut observed = whole(RegistryStatus::Active);
        let Observation::Known(server) = &mut observed.server else { unreachable!() };
        server.database = DatabaseFacts::Absent;
        assert_eq!(plan_living(OBJECT, WANTED, &observed), Plan::Blocked(Blocked::DatabaseMissing));
    }

    #[test]
    fn a_changed_seed_is_one_step() {
        let plan = plan_living(OBJECT, OTHER, &whole(RegistryStatus::Active));
        assert_eq!(plan, Plan::Run { kind: WorkflowKind::Update, steps: vec![Step::Seed], again: false });
    }

    #[test]
    fn access_is_taken_before_it_is_said_to_be() {
        let plan = plan_living(OBJECT, BLOCKED, &judged_anew(RegistryStatus::Active));
        let taken = vec![Step::EnforceAccess, Step::RecordState];
        let suspend = |again| Plan::Run { kind: WorkflowKind::Suspend, steps: taken.clone(), again };
        assert_eq!(plan, suspend(false));
        // Whatever else is to be done: a tenant that holds a lock must not be able to put it off.
        let busy = Wanted { seed_digest: "other", ..BLOCKED };
        assert_eq!(plan_living(OBJECT, busy, &judged_anew(RegistryStatus::Active)), suspend(true));
    }

    #[test]
    fn access_that_is_given_back_is_proven_with_the_login() {
        let mut observed = judged_anew(RegistryStatus::Suspended);
        let (Observation::Known(row), Observation::Known(server)) =
            (&mut observed.registry, &mut observed.server)
        else {
            unreachable!()
        };
        row.recorded_access = Some(AccessLevel::Blocked);
        server.login = LoginFacts::Ours { can_login: false, access_current: false, connections: -1 };
        let steps = vec![Step::EnforceAccess, Step::PublishCredentials, Step::Verify, Step::RecordState];
        let resume = Plan::Run { kind: WorkflowKind::Resume, steps, again: false };
        assert_eq!(plan_living(OBJECT, WANTED, &observed), resume);
    }

    #[test]
    fn a_tenant_that_is_suspended_needs_no_login() {
        let mut observed = whole(RegistryStatus::Suspended);
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        row.recorded_access = Some(AccessLevel::Blocked);
        let Observation::Known(server) = &mut observed.server else { unreachable!() };
        server.login = LoginFacts::Ours { can_login: false, access_current: true, connections: -1 };
        assert_eq!(plan_living(OBJECT, BLOCKED, &observed), Plan::Nothing);
    }

    #[test]
    fn the_end_of_a_trial_that_changes_the_plan_touches_no_access() {
        let mut observed = whole(RegistryStatus::Trial);
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        (row.state_current, row.plan_current) = (false, false);
        let steps = vec![Step::ApplyPlan, Step::PublishCredentials, Step::RecordState];
        let update = Plan::Run { kind: WorkflowKind::Update, steps, again: false };
        assert_eq!(plan_living(OBJECT, WANTED, &observed), update);
    }

    #[test]
    fn a_lost_secret_gets_new_credentials_and_a_proof() {
        let mut observed = whole(RegistryStatus::Active);
        observed.connection_secret = SecretFacts::Absent;
        assert_eq!(steps(plan_living(OBJECT, WANTED, &observed)), [Step::PublishCredentials, Step::Verify]);
    }

    #[test]
    fn an_unknown_is_never_taken_for_an_absent() {
        let mut observed = whole(RegistryStatus::Active);
        observed.server = Observation::Unknown("down".into());
        assert_eq!(
            plan_living(OBJECT, WANTED, &observed),
            Plan::Blocked(Blocked::ServerUnknown("down".into()))
        );
    }

    #[test]
    fn nothing_foreign_is_ever_adopted() {
        let mut observed = registered();
        let Observation::Known(server) = &mut observed.server else { unreachable!() };
        (server.database, server.login) = (DatabaseFacts::Foreign, LoginFacts::Foreign);
        assert_eq!(plan_living(OBJECT, WANTED, &observed), Plan::Blocked(Blocked::ForeignDatabase));
    }

    /// Going away, cut off, still whole.
    fn tombstone() -> Observed {
        let mut observed = whole(RegistryStatus::Deprovisioning);
        let Observation::Known(server) = &mut observed.server else { unreachable!() };
        server.login = LoginFacts::Ours { can_login: false, access_current: false, connections: -1 };
        observed
    }

    #[test]
    fn a_tombstone_comes_back_with_its_data_and_its_password() {
        let wanted = vec![
            Step::Reinstate,
            Step::EnforceAccess,
            Step::PublishCredentials,
            Step::Verify,
            Step::RecordState,
        ];
        let plan = plan_living(OBJECT, WANTED, &tombstone());
        assert_eq!(plan, Plan::Run { kind: WorkflowKind::Undelete, steps: wanted, again: false });
        // The registry is told at once, whatever the server does: the purge must not come first.
        let mut observed = tombstone();
        observed.server = Observation::Unknown("down".into());
        let plan = plan_living(OBJECT, WANTED, &observed);
        assert_eq!(
            plan,
            Plan::Run { kind: WorkflowKind::Undelete, steps: vec![Step::Reinstate], again: true }
        );
    }

    #[test]
    fn a_purge_that_has_begun_is_not_undone() {
        let mut observed = tombstone();
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        row.purging = true;
        let gone = Plan::Blocked(Blocked::RowGone(RegistryStatus::Deprovisioning));
        assert_eq!(plan_living(OBJECT, WANTED, &observed), gone);
    }

    #[test]
    fn a_failed_first_provisioning_is_taken_back_whole() {
        let mut observed = whole(RegistryStatus::Failed);
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        (row.rolling_back, row.handed_out) = (true, false);
        assert_eq!(
            steps(plan_living(OBJECT, WANTED, &observed)),
            [Step::CutAccess, Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::RecordRollback]
        );
    }

    #[test]
    fn a_paused_tenant_is_left_alone_and_told_from_one_that_waits() {
        let object = ObjectFacts { paused: true, ..OBJECT };
        assert_eq!(plan_living(object, WANTED, &whole(RegistryStatus::Active)), Plan::Nothing);
        assert_eq!(
            plan_living(object, OTHER, &whole(RegistryStatus::Active)),
            Plan::Blocked(Blocked::Paused)
        );
        let mut observed = registered();
        observed.registry = Observation::Absent;
        assert_eq!(plan_living(object, WANTED, &observed), Plan::Blocked(Blocked::Paused));
    }
}
