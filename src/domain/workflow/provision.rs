//! Plans for an active Tenant with a valid spec: provision, update, repair, restore, or roll back.

use super::{
    BlockedReason, NextAction, TenantObject,
    activation::is_forgotten,
    gives_back, has_own_database,
    step::{Step, select},
};
use crate::{
    api::tenant_status::WorkflowKind,
    domain::{
        access::AccessLevel,
        observed::{
            BuildingFacts, DatabaseFacts, LoginFacts, Observation, ObservedFacts, ReaderFacts, RegistryFacts,
            RegistryStatus, SecretFacts, ServerFacts, Takeover,
        },
        rotation::PreviousState,
        usage::entitlements::reader_connections,
    },
};

/// What a Tenant should have, as far as planning needs it.
#[derive(Clone, Copy, Debug)]
pub struct ProvisionTarget<'a> {
    /// Digest of the seed.
    pub seed_digest: &'a str,
    /// The access level.
    pub access: AccessLevel,
    /// The maximum number of sessions of the login, as PostgreSQL has it: -1 for no limit.
    pub connections: i32,
    /// `Trial`, `Active` or `Suspended`.
    pub state: RegistryStatus,
}

/// Plans for a Tenant that is not being deprovisioned and has a valid spec.
pub fn plan_provision(
    object: TenantObject,
    target: ProvisionTarget<'_>,
    observed: &ObservedFacts,
) -> NextAction {
    let row = match &observed.registry {
        Observation::Unknown(why) => {
            return NextAction::Blocked(BlockedReason::RegistryUnknown(why.clone()));
        }
        Observation::Absent => return without_row(object, &observed.server),
        Observation::Known(row) => row,
    };
    let restoring = row.status == RegistryStatus::Deprovisioning;
    if row.status == RegistryStatus::Deprovisioned || restoring && row.purging {
        return NextAction::Blocked(BlockedReason::RowClosed(row.status));
    }
    if object.paused && (restoring || row.rolling_back) {
        return NextAction::Blocked(BlockedReason::Paused);
    }
    if !object.paused && is_forgotten(row, object, observed) {
        return NextAction::Run {
            kind: WorkflowKind::Repair,
            steps: vec![Step::RestoreActivation],
            again: true,
        };
    }
    let server = match &observed.server {
        Observation::Known(server) => server,
        Observation::Unknown(_) | Observation::Absent if restoring => return reinstate(),
        Observation::Unknown(why) => return NextAction::Blocked(BlockedReason::ServerUnknown(why.clone())),
        Observation::Absent => return NextAction::Blocked(BlockedReason::server_not_asked()),
    };
    if row.rolling_back {
        return roll_back(row, server);
    }
    let tenant = RegisteredTenant {
        object,
        target,
        row,
        server,
        secret: observed.connection_secret,
        reader: observed.reader,
        restoring,
        activated: row.status.was_active() || restoring && row.activated,
    };
    // Whatever else is wrong, and whatever else has to be done.
    if tenant.restricts_access() && !object.paused {
        return tenant.restrict_first();
    }
    if let Some(action) = tenant.without_own_objects() {
        return action;
    }
    let steps = tenant.steps();
    match steps.is_empty() {
        true if !server.unrepairable.is_empty() => {
            NextAction::Blocked(BlockedReason::Unrepairable(server.unrepairable.clone()))
        }
        true => NextAction::Done,
        // A paused tenant is Paused only if there is work to do.
        false if object.paused => NextAction::Blocked(BlockedReason::Paused),
        // The Secret of an active tenant has the new versions after that.
        false => {
            // A rotation that waited for the end of the one before may be due then. A new tenant is not Ready before it has
            // the reader login that was asked for.
            let leads_to_more = |step: &Step| match step {
                Step::ApplyMigrations | Step::PurgeModules | Step::RetireLogin => tenant.activated,
                Step::Activate => tenant.reader.is_wanted || !row.slug_current,
                _ => false,
            };
            let again = steps.iter().any(leads_to_more);
            NextAction::Run { kind: tenant.kind(&steps), steps, again }
        }
    }
}

/// Plans for a tenant that the registry does not know.
fn without_row(object: TenantObject, server: &Observation<ServerFacts>) -> NextAction {
    match server {
        _ if object.was_registered && object.adopts_row && !object.paused => NextAction::Run {
            kind: WorkflowKind::Repair,
            steps: select([(Step::ClaimFinalizer, !object.has_finalizer), (Step::AdoptRow, true)]),
            again: true,
        },
        _ if object.is_elsewhere => NextAction::Blocked(BlockedReason::Elsewhere),
        // Provisioned again, it would be another tenant, without this one's data.
        _ if object.was_registered => NextAction::Blocked(BlockedReason::RowMissing),
        _ if object.paused => NextAction::Blocked(BlockedReason::Paused),
        // A new tenant has no effect anywhere before its server has passed the preflight check.
        Observation::Unknown(why) => NextAction::Blocked(BlockedReason::ServerUnknown(why.clone())),
        Observation::Known(_) | Observation::Absent => NextAction::Run {
            kind: WorkflowKind::Provision,
            steps: select([(Step::ClaimFinalizer, !object.has_finalizer), (Step::Register, true)]),
            again: true,
        },
    }
}

/// Stops the clock of the purge, before anything else is known of a tenant that is restored.
fn reinstate() -> NextAction {
    NextAction::Run { kind: WorkflowKind::Undelete, steps: vec![Step::Reinstate], again: true }
}

/// A tenant that is registered and not being rolled back, on a server that was read.
struct RegisteredTenant<'a> {
    object: TenantObject,
    target: ProvisionTarget<'a>,
    row: &'a RegistryFacts,
    server: &'a ServerFacts,
    secret: SecretFacts,
    reader: ReaderFacts,
    /// It was being deprovisioned, and is restored.
    restoring: bool,
    /// It was active before: its database is never created again.
    activated: bool,
}

impl RegisteredTenant<'_> {
    /// The action for a tenant whose database or login belongs to another owner, or whose database is lost.
    fn without_own_objects(&self) -> Option<NextAction> {
        match self.server.database {
            // One that is taken over has no ownership comment before the step.
            DatabaseFacts::Foreign if !self.is_taken_over_now() => {
                Some(NextAction::Blocked(BlockedReason::ForeignDatabase))
            }
            // First the tombstone is taken back; then the missing database is reported.
            DatabaseFacts::Absent if self.activated && self.restoring => Some(reinstate()),
            DatabaseFacts::Absent if self.activated || self.row.takeover.is_some() => {
                Some(NextAction::Blocked(BlockedReason::DatabaseMissing))
            }
            DatabaseFacts::Absent | DatabaseFacts::Ours | DatabaseFacts::Foreign => (self.server.login
                == LoginFacts::Foreign)
                .then_some(NextAction::Blocked(BlockedReason::ForeignLogin)),
        }
    }

    /// Every step with the observation that requires it, in the order in which they run.
    fn steps(&self) -> Vec<Step> {
        let Self { row, activated, .. } = *self;
        let is_adopted = row.takeover.is_some();
        let create = !is_adopted && !self.is_published() && self.server.building != BuildingFacts::Ready;
        let credentials = self.are_credentials_current();
        let seed = create || row.seed_digest.as_deref() != Some(self.target.seed_digest);
        let apply_plan =
            create || !row.plan_current || !self.are_connections_current() || self.rotates_login();
        let migrate = create || !row.modules_current;
        // A mistake in a migration, or a tenant's lock, must not delay the access and the credentials of an active tenant.
        // Without recorded limits, its plan can be applied only after the migrations, and its Secret be written after that.
        let migrates_last = activated && row.plan_recorded;
        let rotates = self.rotates_login();
        // A tenant that is made keeps the slug that it was registered with until it is in use.
        let renames = activated && !row.slug_current;
        select([
            (Step::ClaimFinalizer, !self.object.has_finalizer),
            (Step::Reinstate, self.restoring),
            (Step::Register, !row.declared_current),
            // From here on, the other login is the tenant's, and has nothing yet.
            (Step::RotateLogin, rotates),
            (
                Step::CreateRoles,
                rotates || matches!(self.server.login, LoginFacts::Absent | LoginFacts::Renamed),
            ),
            (Step::CreateDatabase, create),
            (Step::TakeOver, self.is_taken_over_now()),
            // A database that has limits already gets the new ones before the migrations.
            (Step::ApplyPlan, apply_plan && row.plan_recorded && !create),
            (Step::ApplyMigrations, migrate && !migrates_last),
            // Before the seed: an admin who is added together with a larger plan needs its limits.
            (Step::ApplyPlan, apply_plan && !row.plan_recorded && !create),
            (Step::Seed, seed && !activated),
            // The seed of a new database writes the limits too, in the one session that both need.
            (Step::ApplyPlan, create),
            (Step::PublishDatabase, !self.is_published() && !is_adopted),
            (Step::EnforceAccess, rotates || !self.is_access_in_force()),
            // The Secret contains the entitlements, for gateways.
            (Step::PublishCredentials, rotates || !credentials || !row.plan_current),
            (Step::Verify, rotates || !activated || !credentials || row.verification_required),
            (Step::RetireLogin, self.retires_login()),
            (Step::Activate, !activated),
            (Step::RecordState, activated && (self.restoring || !row.state_current)),
            (Step::ChangeSlug, renames && !row.slug_refused),
            (Step::RemoveReader, activated && self.reader.is_recorded && !self.reader.is_wanted),
            (Step::PublishReader, self.publishes_reader()),
            (Step::ApplyMigrations, migrate && migrates_last),
            // Last for an active tenant: an admin who exceeds a limit must not delay access and credentials.
            (Step::Seed, seed && activated),
            (Step::PurgeModules, activated && !self.restoring && !row.purges_current),
            // Another tenant had the slug at the last attempt: nothing else waits for that.
            (Step::ChangeSlug, renames && row.slug_refused),
        ])
    }

    fn is_taken_over_now(&self) -> bool {
        self.row.takeover == Some(Takeover::Pending) && !self.activated
    }

    fn is_published(&self) -> bool {
        self.server.database == DatabaseFacts::Ours
    }

    fn is_access_in_force(&self) -> bool {
        let current = matches!(self.server.login, LoginFacts::Ours { access_current: true, .. });
        self.is_published() && current && self.row.access_recorded
    }

    /// Whether the tenant gets its other login now. A Blocked tenant gets it once it has access again.
    fn rotates_login(&self) -> bool {
        let Self { row, activated, restoring, .. } = *self;
        let is_usable = matches!(self.server.login, LoginFacts::Ours { .. }) && row.has_verifier;
        row.rotation_due
            && activated
            && !restoring
            && is_usable
            && row.previous == PreviousState::Absent
            && self.target.access > AccessLevel::Blocked
    }

    /// Whether the previous login is ended: its time is over, or there is none.
    fn retires_login(&self) -> bool {
        let is_gone =
            self.row.previous != PreviousState::Absent && self.server.previous == LoginFacts::Absent;
        self.activated && !self.restoring && (is_gone || self.row.previous == PreviousState::Over)
    }

    /// Whether the reader login is created, or its Secret written: a rotation gives it a new password too, and its Secret
    /// contains the entitlements. Its rights, LOGIN and limits are restored with those of the login.
    fn publishes_reader(&self) -> bool {
        let exists = matches!(self.server.reader, LoginFacts::Ours { .. });
        let is_current = exists && self.reader.is_published && self.row.plan_current;
        self.activated && self.reader.is_wanted && (!is_current || self.rotates_login())
    }

    fn are_connections_current(&self) -> bool {
        let wanted = self.target.connections;
        let is_current = |login: LoginFacts, wanted: i32, without: bool| match login {
            LoginFacts::Ours { connections, .. } => connections == wanted,
            LoginFacts::Absent | LoginFacts::Renamed | LoginFacts::Foreign => without,
        };
        let is_over = self.row.previous == PreviousState::Over;
        is_current(self.server.login, wanted, false)
            && (is_over || is_current(self.server.previous, wanted, true))
            && is_current(self.server.reader, reader_connections(wanted), true)
    }

    fn are_credentials_current(&self) -> bool {
        let can_login = matches!(self.server.login, LoginFacts::Ours { can_login: true, .. });
        // The login of a Blocked tenant has a password, but not LOGIN.
        let login_current = can_login || self.target.access == AccessLevel::Blocked;
        // The time of the previous login begins with the publication.
        let is_recorded = self.row.previous != PreviousState::Needed;
        self.row.has_verifier && login_current && is_recorded && self.secret == SecretFacts::Current
    }

    /// Whether the level is narrower than the recorded one.
    fn is_narrower(&self) -> bool {
        match self.row.recorded_access {
            Some(recorded) => self.target.access < recorded,
            None => self.target.access < AccessLevel::ReadWrite,
        }
    }

    /// Restricts access before the rest of the work, which may fail or take long, and which a tenant can delay.
    fn restrict_first(&self) -> NextAction {
        // After an interrupted rotation, the login has to exist before it can have a level.
        let restricts = |step: &Step| match step {
            Step::ClaimFinalizer | Step::EnforceAccess | Step::RecordState => true,
            Step::CreateRoles => self.server.login == LoginFacts::Absent,
            _ => false,
        };
        let (first, rest): (Vec<Step>, Vec<Step>) = self.steps().into_iter().partition(restricts);
        let kind = if self.is_narrower() { WorkflowKind::Suspend } else { WorkflowKind::Repair };
        NextAction::Run { kind, steps: first, again: !rest.is_empty() }
    }

    /// Whether an active tenant loses access: the level is narrower than the recorded one, or access was regained by hand.
    fn restricts_access(&self) -> bool {
        let is_regained = self.server.exceeds_level
            && self.row.access_recorded
            && self.target.access < AccessLevel::ReadWrite;
        let has_login = self.server.has_login();
        // To take all access, no database is needed.
        let is_possible = self.is_published() || self.target.access == AccessLevel::Blocked;
        (self.is_narrower() || is_regained) && self.activated && !self.restoring && is_possible && has_login
    }

    fn kind(&self, steps: &[Step]) -> WorkflowKind {
        match (self.restoring, self.activated) {
            (true, _) => WorkflowKind::Undelete,
            (false, false) => WorkflowKind::Provision,
            (false, true) => self.kind_of_change(steps),
        }
    }

    /// The kind of a workflow for an active tenant.
    fn kind_of_change(&self, steps: &[Step]) -> WorkflowKind {
        let Self { row, target, .. } = *self;
        let narrower = row.recorded_access.is_none_or(|recorded| target.access < recorded);
        let changes_access = steps.contains(&Step::RecordState) || !row.access_recorded;
        match changes_access {
            true if narrower && target.state == RegistryStatus::Suspended => WorkflowKind::Suspend,
            true if row.status == RegistryStatus::Suspended => WorkflowKind::Resume,
            true => WorkflowKind::Update,
            false if !row.plan_current => WorkflowKind::ChangePlan,
            false
                if steps.iter().any(|step| {
                    matches!(
                        step,
                        Step::Register
                            | Step::ChangeSlug
                            | Step::Seed
                            | Step::PurgeModules
                            | Step::RotateLogin
                            | Step::RemoveReader
                    )
                }) =>
            {
                WorkflowKind::Update
            }
            false if self.reader.is_wanted && !self.reader.is_recorded => WorkflowKind::Update,
            false => WorkflowKind::Repair,
        }
    }
}

/// Removes what a failed first provisioning created. A tenant that was ever active is never rolled back: the registry
/// refuses to record it.
fn roll_back(row: &RegistryFacts, server: &ServerFacts) -> NextAction {
    let own_login = server.has_login();
    let steps = select([
        (Step::CutAccess, own_login),
        (Step::GiveBack, gives_back(row) && row.database_recorded),
        (Step::DropDatabase, !gives_back(row) && (has_own_database(server) || row.database_recorded)),
        (Step::DropRoles, own_login),
        (Step::RemoveSecrets, true),
        (Step::RecordRollback, true),
    ]);
    NextAction::run(WorkflowKind::Rollback, steps)
}

#[cfg(test)]
mod tests;
