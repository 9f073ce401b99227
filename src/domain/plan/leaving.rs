//! The plan of a tenant that leaves.

use jiff::SignedDuration;

use super::{Blocked, ObjectFacts, Plan, Presence};
use crate::{
    api::tenant_status::WorkflowKind,
    domain::{
        breaker::{COUNT_FIRST, Moment, Purges},
        departure::Terms,
        observed::{
            BuildingFacts, DatabaseFacts, LoginFacts, Observation, Observed, RegistryFacts, RegistryStatus,
        },
        steps::Step,
    },
};

/// How long an object waits for its access to be cut before it is let go all the same; the registry goes on alone.
pub const RELEASE_UNCUT_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Plans for a tenant that leaves: its object was deleted or is gone, or its spec says so. It needs no valid spec:
/// only the row, the recorded names, and the terms.
///
/// The finalizer guards one thing: that the registry knows. With grace left, or where the database is kept, it is let
/// go once the tombstone is written and the cut is verified, or after [`RELEASE_UNCUT_AFTER`]; with none left it is held
/// until everything is gone.
///
/// While the breaker of mass deletions is open, nothing that was ever in use is dropped: the object is let go as if there
/// were grace. While it is closed, what has just begun to go away is counted before it is dropped.
pub fn plan_leaving(
    object: ObjectFacts,
    terms: Terms,
    observed: &Observed,
    moment: impl Into<Moment>,
) -> Plan {
    let Moment { now, purges } = moment.into();
    let deleted_at = match object.presence {
        Presence::Deleted(_) if !object.has_finalizer => return Plan::Nothing,
        Presence::Deleted(at) => Some(at),
        Presence::Living | Presence::Gone => None,
    };
    let leave = |steps: Vec<Step>, again| match steps.is_empty() {
        true => Plan::Nothing,
        false => Plan::Run { kind: WorkflowKind::Deprovision, steps, again },
    };
    let row: &RegistryFacts = match &observed.registry {
        Observation::Unknown(why) => return Plan::Blocked(Blocked::RegistryUnknown(why.clone())),
        // A registry that was lost or restored is not one that never knew: the database is there, and nobody would.
        Observation::Absent if object.was_registered => return Plan::Blocked(Blocked::RowMissing),
        // Never registered, or the loser of a slug conflict: nothing outside the object is its own.
        Observation::Absent if deleted_at.is_some() => return leave(vec![Step::ReleaseFinalizer], false),
        Observation::Absent if object.presence == Presence::Gone => return Plan::Nothing,
        // It may be the same Tenant as a tombstone's: registering finds that out.
        Observation::Absent if object.paused => return Plan::Blocked(Blocked::Paused),
        Observation::Absent => return leave(vec![Step::ClaimFinalizer, Step::Register], true),
        Observation::Known(row) => row,
    };
    if row.status == RegistryStatus::Deprovisioned {
        let release = [Step::RemoveSecrets, Step::ReleaseFinalizer];
        return leave(if deleted_at.is_some() { release.into() } else { vec![] }, false);
    }
    if object.presence == Presence::Living && object.paused && row.tombstone.is_none() {
        return Plan::Blocked(Blocked::Paused);
    }
    // A purge that has begun is finished on the terms on which it began.
    let terms = match row.tombstone {
        Some(recorded) if row.purging => recorded,
        _ => terms,
    };
    let marked = row.tombstone == Some(terms);
    // What cannot be undone waits for its time, and while it is held; a paused deletion is cut and marked at once.
    let drops_data = row.handed_out && !row.purging && !terms.retain;
    let frozen = purges == Purges::Frozen && drops_data;
    let due = terms.purge_after <= now && !terms.held && !frozen;
    let purging = due && !terms.retain;
    // A visit that changes the terms never acts on them: the next one does, if they are the same then.
    let changing = row.tombstone.is_some() && !marked;
    let counted = match purges {
        Purges::Unknown => !drops_data,
        Purges::Counted => {
            !drops_data || row.departed_at.is_some_and(|at| now.duration_since(at) >= COUNT_FIRST)
        }
        Purges::Free | Purges::Frozen => true,
    };
    let (closing, drop) = (due && !changing && counted, purging && !changing && counted);
    let early = deleted_at.filter(|_| !purging);
    let waited_long = early.is_some_and(|at| marked && now.duration_since(at) >= RELEASE_UNCUT_AFTER);
    let server = match &observed.server {
        Observation::Known(facts) => facts,
        Observation::Unknown(_) | Observation::Absent if !marked => {
            return leave(vec![Step::Tombstone], true);
        }
        Observation::Unknown(_) | Observation::Absent if waited_long => {
            return leave(vec![Step::ReleaseFinalizer], false);
        }
        Observation::Unknown(why) => return Plan::Blocked(Blocked::ServerUnknown(why.clone())),
        Observation::Absent => {
            return Plan::Blocked(Blocked::ServerUnknown("the server was not asked".into()));
        }
    };
    let (login_ours, cut) = match server.login {
        LoginFacts::Ours { access_current, .. } => (true, access_current && row.access_recorded),
        LoginFacts::Absent => (false, row.access_recorded),
        // Somebody else's role says nothing of what the tenant's own had; one that never had anything is as good as cut.
        LoginFacts::Foreign => (false, row.access_recorded || !row.handed_out),
    };
    if waited_long && !cut {
        // It was tried, and the registry goes on trying.
        return leave(vec![Step::ReleaseFinalizer], false);
    }
    let database_ours = server.database == DatabaseFacts::Ours || server.building != BuildingFacts::Absent;
    // A database that was in use, and another in its place: where it went is not known, so that nothing is over.
    let replaced = server.database == DatabaseFacts::Foreign && !database_ours && row.handed_out;
    if drop && replaced && row.database_recorded {
        let before = [(Step::CutAccess, !cut), (Step::Tombstone, !marked)];
        let before: Vec<Step> =
            before.into_iter().filter(|(_, asked)| *asked).map(|(step, _)| step).collect();
        return match before.is_empty() {
            true => Plan::Blocked(Blocked::ForeignDatabase),
            false => leave(before, false),
        };
    }
    // One that is recorded and not there was dropped by a run that was cut off, or by hand: that is recorded then.
    let wanted = [
        (Step::ClaimFinalizer, object.presence == Presence::Living && !object.has_finalizer),
        (Step::CutAccess, !cut),
        (Step::Tombstone, !marked),
        (Step::DropDatabase, drop && (database_ours || row.database_recorded)),
        (Step::DropRoles, drop && login_ours),
        (Step::RemoveSecrets, closing),
        (Step::Close, closing),
        (Step::ReleaseFinalizer, deleted_at.is_some() && purging == drop),
    ];
    leave(wanted.into_iter().filter(|(_, asked)| *asked).map(|(step, _)| step).collect(), false)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::plan::fixtures::*;

    const NOW: Timestamp = Timestamp::constant(1_000_000, 0);
    const LATER: Timestamp = Timestamp::constant(2_000_000, 0);
    const NO_GRACE: Terms = Terms { purge_after: NOW, retain: false, held: false };
    const GRACE: Terms = Terms { purge_after: LATER, retain: false, held: false };
    const RETAIN: Terms = Terms { purge_after: LATER, retain: true, held: false };
    const DELETED: ObjectFacts = ObjectFacts { presence: Presence::Deleted(NOW), ..OBJECT };
    const KEPT: ObjectFacts = OBJECT;
    const GONE: ObjectFacts = ObjectFacts { has_finalizer: false, presence: Presence::Gone, ..OBJECT };
    /// Long enough after the deletion.
    const AT_LAST: Timestamp = Timestamp::constant(1_000_060, 0);

    fn plan(object: ObjectFacts, terms: Terms, observed: &Observed) -> Vec<Step> {
        steps(plan_leaving(object, terms, observed, NOW))
    }

    /// Cut, and marked with these terms.
    fn marked(terms: Terms) -> Observed {
        let mut observed = whole(RegistryStatus::Deprovisioning);
        let (Observation::Known(row), Observation::Known(server)) =
            (&mut observed.registry, &mut observed.server)
        else {
            unreachable!()
        };
        (row.tombstone, row.access_recorded) = (Some(terms), true);
        server.login = LoginFacts::Ours { can_login: false, access_current: true, connections: -1 };
        observed
    }

    /// Not cut: the login has what it had.
    fn active() -> Observed {
        let mut observed = whole(RegistryStatus::Active);
        let (Observation::Known(row), Observation::Known(server)) =
            (&mut observed.registry, &mut observed.server)
        else {
            unreachable!()
        };
        row.access_recorded = false;
        server.login = LoginFacts::Ours { can_login: true, access_current: false, connections: -1 };
        observed
    }

    fn unreachable_server(mut observed: Observed) -> Observed {
        observed.server = Observation::Unknown("down".into());
        observed
    }

    #[test]
    fn without_grace_it_runs_to_the_end_in_the_order_that_loses_nothing() {
        assert_eq!(
            plan(DELETED, NO_GRACE, &active()),
            [
                Step::CutAccess,
                Step::Tombstone,
                Step::DropDatabase,
                Step::DropRoles,
                Step::RemoveSecrets,
                Step::Close,
                Step::ReleaseFinalizer,
            ]
        );
    }

    #[test]
    fn with_grace_the_object_goes_once_the_registry_knows_and_access_is_cut() {
        for terms in [GRACE, RETAIN, Terms { held: true, ..NO_GRACE }] {
            let wanted = [Step::CutAccess, Step::Tombstone, Step::ReleaseFinalizer];
            assert_eq!(plan(DELETED, terms, &active()), wanted, "{terms:?}");
            assert_eq!(plan(DELETED, terms, &marked(terms)), [Step::ReleaseFinalizer], "{terms:?}");
        }
    }

    #[test]
    fn an_object_that_is_kept_is_cut_and_waits_for_its_time() {
        assert_eq!(plan(KEPT, GRACE, &active()), [Step::CutAccess, Step::Tombstone]);
        assert_eq!(plan_leaving(KEPT, GRACE, &marked(GRACE), NOW), Plan::Nothing);
        let ends = [Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::Close];
        assert_eq!(steps(plan_leaving(KEPT, GRACE, &marked(GRACE), LATER)), ends);
        let row = |status| {
            let mut observed = whole(status);
            observed.server = Observation::Absent;
            observed
        };
        assert_eq!(plan_leaving(KEPT, GRACE, &row(RegistryStatus::Deprovisioned), NOW), Plan::Nothing);
    }

    #[test]
    fn the_registry_alone_is_enough_to_end_it() {
        assert_eq!(plan_leaving(GONE, GRACE, &marked(GRACE), NOW), Plan::Nothing);
        let ends = [Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::Close];
        assert_eq!(steps(plan_leaving(GONE, GRACE, &marked(GRACE), LATER)), ends);
        let kept = [Step::RemoveSecrets, Step::Close];
        assert_eq!(steps(plan_leaving(GONE, RETAIN, &marked(RETAIN), LATER)), kept);
        let held = Terms { held: true, ..GRACE };
        assert_eq!(plan_leaving(GONE, held, &marked(held), LATER), Plan::Nothing);
    }

    #[test]
    fn changed_terms_are_recorded_until_the_purge_has_begun() {
        assert_eq!(plan(KEPT, RETAIN, &marked(GRACE)), [Step::Tombstone]);
        let mut begun = marked(NO_GRACE);
        let Observation::Known(row) = &mut begun.registry else { unreachable!() };
        row.purging = true;
        let ends = [Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::Close];
        assert_eq!(plan(KEPT, RETAIN, &begun), ends, "half a database is nothing to retain");
    }

    #[test]
    fn a_finalizer_that_was_taken_from_an_object_that_is_kept_is_put_back() {
        let kept = ObjectFacts { has_finalizer: false, ..KEPT };
        assert_eq!(plan(kept, GRACE, &marked(GRACE)), [Step::ClaimFinalizer]);
        assert_eq!(plan(GONE, GRACE, &marked(GRACE)), []);
    }

    #[test]
    fn while_purges_are_frozen_the_object_goes_and_the_data_stays() {
        let frozen = Moment { now: NOW, purges: Purges::Frozen };
        let plan = |object, observed: &Observed| steps(plan_leaving(object, NO_GRACE, observed, frozen));
        let released = [Step::CutAccess, Step::Tombstone, Step::ReleaseFinalizer];
        assert_eq!(plan(DELETED, &active()), released);
        assert_eq!(plan(DELETED, &marked(NO_GRACE)), [Step::ReleaseFinalizer]);
        assert_eq!(plan(GONE, &marked(NO_GRACE)), []);
        // What has begun is finished, what was never in use is nobody's loss, and what is kept is only closed.
        let mut begun = marked(NO_GRACE);
        let Observation::Known(row) = &mut begun.registry else { unreachable!() };
        row.purging = true;
        assert!(plan(GONE, &begun).contains(&Step::DropDatabase));
        let mut never = marked(NO_GRACE);
        let Observation::Known(row) = &mut never.registry else { unreachable!() };
        row.handed_out = false;
        assert!(plan(GONE, &never).contains(&Step::DropDatabase));
        let kept = Terms { purge_after: NOW, ..RETAIN };
        let closed = steps(plan_leaving(GONE, kept, &marked(kept), frozen));
        assert_eq!(closed, [Step::RemoveSecrets, Step::Close]);
    }

    #[test]
    fn what_has_just_begun_to_go_away_is_counted_before_it_is_dropped() {
        let at =
            |seconds: i64| Moment { now: NOW + SignedDuration::from_secs(seconds), purges: Purges::Counted };
        let first = steps(plan_leaving(DELETED, NO_GRACE, &active(), at(0)));
        assert_eq!(first, [Step::CutAccess, Step::Tombstone], "the object waits for the end");
        let mut observed = marked(NO_GRACE);
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        row.departed_at = Some(NOW);
        let unknown = Moment { now: LATER, purges: Purges::Unknown };
        assert_eq!(plan_leaving(DELETED, NO_GRACE, &observed, unknown), Plan::Nothing);
        assert_eq!(plan_leaving(DELETED, NO_GRACE, &observed, at(4)), Plan::Nothing);
        assert!(steps(plan_leaving(DELETED, NO_GRACE, &observed, at(5))).contains(&Step::DropDatabase));
    }

    #[test]
    fn a_visit_that_changes_the_terms_never_acts_on_them() {
        let held = Terms { held: true, ..NO_GRACE };
        for recorded in [GRACE, held, Terms { retain: true, ..NO_GRACE }] {
            assert_eq!(plan(KEPT, NO_GRACE, &marked(recorded)), [Step::Tombstone], "{recorded:?}");
            // With nothing left to undo, the object is held until everything is gone: by the next visit.
            assert_eq!(plan(DELETED, NO_GRACE, &marked(recorded)), [Step::Tombstone], "{recorded:?}");
        }
        let retain = Terms { retain: true, ..NO_GRACE };
        assert_eq!(plan(KEPT, retain, &marked(GRACE)), [Step::Tombstone]);
        assert_eq!(plan(DELETED, retain, &marked(GRACE)), [Step::Tombstone, Step::ReleaseFinalizer]);
        let ends = [Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::Close];
        assert_eq!(plan(KEPT, NO_GRACE, &marked(NO_GRACE)), ends);
    }

    #[test]
    fn the_registry_knows_even_if_the_server_does_not_answer() {
        let wait = Plan::Blocked(Blocked::ServerUnknown("down".into()));
        for terms in [GRACE, NO_GRACE] {
            let before = unreachable_server(active());
            assert_eq!(plan(DELETED, terms, &before), [Step::Tombstone]);
            assert_eq!(plan_leaving(DELETED, terms, &unreachable_server(marked(terms)), NOW), wait);
        }
        // After a minute the object goes, and the registry goes on; with nothing left to undo it is held.
        let at_last = |terms| plan_leaving(DELETED, terms, &unreachable_server(marked(terms)), AT_LAST);
        assert_eq!(steps(at_last(GRACE)), [Step::ReleaseFinalizer]);
        assert_eq!(steps(at_last(RETAIN)), [Step::ReleaseFinalizer]);
        assert_eq!(at_last(NO_GRACE), wait);
    }

    #[test]
    fn a_cut_that_does_not_succeed_holds_the_object_for_a_minute() {
        let mut uncut = marked(GRACE);
        let Observation::Known(server) = &mut uncut.server else { unreachable!() };
        server.login = LoginFacts::Ours { can_login: false, access_current: false, connections: -1 };
        assert_eq!(plan(DELETED, GRACE, &uncut), [Step::CutAccess, Step::ReleaseFinalizer]);
        assert_eq!(steps(plan_leaving(DELETED, GRACE, &uncut, AT_LAST)), [Step::ReleaseFinalizer]);
        // The first attempt is made however late it is.
        let first = plan_leaving(DELETED, GRACE, &active(), AT_LAST);
        assert_eq!(steps(first), [Step::CutAccess, Step::Tombstone, Step::ReleaseFinalizer]);
    }

    #[test]
    fn retain_drops_nothing() {
        let retain = Terms { retain: true, ..NO_GRACE };
        let steps = plan(DELETED, retain, &active());
        assert!(!steps.contains(&Step::DropDatabase) && !steps.contains(&Step::DropRoles));
        assert!(steps.contains(&Step::Close));
        assert_eq!(steps.last(), Some(&Step::ReleaseFinalizer));
    }

    #[test]
    fn a_database_that_is_gone_already_is_recorded_as_gone() {
        let mut observed = marked(NO_GRACE);
        let Observation::Known(server) = &mut observed.server else { unreachable!() };
        (server.database, server.login) = (DatabaseFacts::Absent, LoginFacts::Absent);
        assert_eq!(
            plan(DELETED, NO_GRACE, &observed),
            [Step::DropDatabase, Step::RemoveSecrets, Step::Close, Step::ReleaseFinalizer]
        );
    }

    #[test]
    fn a_tenant_that_never_registered_leaves_at_once() {
        let mut observed = registered();
        observed.registry = Observation::Absent;
        assert_eq!(plan(DELETED, NO_GRACE, &observed), [Step::ReleaseFinalizer]);
        assert_eq!(plan(KEPT, NO_GRACE, &observed), [Step::ClaimFinalizer, Step::Register]);
        assert_eq!(plan_leaving(GONE, NO_GRACE, &observed, NOW), Plan::Nothing);
    }

    #[test]
    fn a_tenant_that_was_registered_is_not_let_go_without_its_row() {
        let mut observed = registered();
        observed.registry = Observation::Absent;
        for object in [DELETED, KEPT] {
            let object = ObjectFacts { was_registered: true, ..object };
            assert_eq!(
                plan_leaving(object, NO_GRACE, &observed, AT_LAST),
                Plan::Blocked(Blocked::RowMissing)
            );
        }
    }

    #[test]
    fn a_paused_object_that_stays_is_left_alone() {
        let object = ObjectFacts { paused: true, ..KEPT };
        let held = Terms { held: true, ..GRACE };
        assert_eq!(plan_leaving(object, held, &active(), NOW), Plan::Blocked(Blocked::Paused));
    }

    #[test]
    fn an_unknown_is_never_taken_for_an_absent() {
        let mut observed = active();
        observed.registry = Observation::Unknown("down".into());
        for object in [DELETED, KEPT, GONE] {
            let plan = plan_leaving(object, NO_GRACE, &observed, NOW);
            assert_eq!(plan, Plan::Blocked(Blocked::RegistryUnknown("down".into())));
        }
    }

    #[test]
    fn nothing_foreign_is_ever_cut_or_dropped() {
        let mut observed = registered();
        observed.server = Observation::Known(crate::domain::observed::ServerFacts {
            database: DatabaseFacts::Foreign,
            building: BuildingFacts::Absent,
            login: LoginFacts::Foreign,
        });
        assert_eq!(
            plan(DELETED, NO_GRACE, &observed),
            [Step::Tombstone, Step::RemoveSecrets, Step::Close, Step::ReleaseFinalizer]
        );
    }

    #[test]
    fn a_strangers_role_is_no_proof_that_access_is_cut() {
        let foreign = |access_recorded, terms| {
            let mut observed = marked(terms);
            let (Observation::Known(row), Observation::Known(server)) =
                (&mut observed.registry, &mut observed.server)
            else {
                unreachable!()
            };
            (row.access_recorded, server.login) = (access_recorded, LoginFacts::Foreign);
            observed
        };
        // CutAccess fails and says why; the tombstone is written all the same, and after a minute the object goes.
        assert_eq!(plan(DELETED, GRACE, &foreign(false, GRACE)), [Step::CutAccess, Step::ReleaseFinalizer]);
        let late = plan_leaving(DELETED, GRACE, &foreign(false, GRACE), AT_LAST);
        assert_eq!(steps(late), [Step::ReleaseFinalizer]);
        let purge = plan(KEPT, NO_GRACE, &foreign(false, NO_GRACE));
        assert_eq!(purge[..2], [Step::CutAccess, Step::DropDatabase]);
        assert!(!plan(KEPT, NO_GRACE, &foreign(true, NO_GRACE)).contains(&Step::CutAccess));
    }

    #[test]
    fn another_database_in_its_place_is_no_proof_that_it_is_dropped() {
        let foreign = |mut observed: Observed| {
            let Observation::Known(server) = &mut observed.server else { unreachable!() };
            server.database = DatabaseFacts::Foreign;
            observed
        };
        let stuck = Plan::Blocked(Blocked::ForeignDatabase);
        assert_eq!(plan_leaving(DELETED, NO_GRACE, &foreign(marked(NO_GRACE)), NOW), stuck);
        assert_eq!(plan(DELETED, NO_GRACE, &foreign(active())), [Step::CutAccess, Step::Tombstone]);
        // With grace left, or where it is kept, nothing is to be dropped.
        assert_eq!(plan(DELETED, GRACE, &foreign(marked(GRACE))), [Step::ReleaseFinalizer]);
        // Its drop was recorded, or it never was in use: the other one is nobody's business.
        for (recorded, handed_out) in [(false, true), (true, false)] {
            let mut observed = foreign(marked(NO_GRACE));
            let Observation::Known(row) = &mut observed.registry else { unreachable!() };
            (row.database_recorded, row.handed_out) = (recorded, handed_out);
            assert_eq!(plan(KEPT, NO_GRACE, &observed).last(), Some(&Step::Close));
        }
    }
}
