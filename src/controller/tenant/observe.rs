//! The second phase of a reconcile: reads the server's catalogs (one query) and the Secret, which a watch keeps in memory.
//! The registry's row is the one that the load read, or that a step returned. Nothing is written.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::{
    admin_content,
    evaluate::{completes_secret, evaluate, migrates_now},
    secrets::{self, Connection},
    takeover::{Inspection, inspect},
};
use crate::{
    api::{LABEL_TENANT_ID, reason::Reason},
    controller::{context::SharedContext, state::servers::ServerState},
    domain::{
        access::AccessLevel,
        drift::{self, Expected, Mismatch},
        module_purge::is_due,
        observed::{Observation, ObservedFacts, ReaderFacts, RegistryFacts, RegistryStatus, SecretFacts},
        record::TenantRecord,
        seed_record::SeedRecord,
        spec,
        subject::Subject,
        tenant_facts::{RecordedOids, TenantFacts},
    },
    postgres::{self, server::Server},
};

/// A tenant and what was read of it.
pub struct Observed<'a> {
    /// The tenant, evaluated with the row that was read.
    pub subject: Subject<'a>,
    /// What the plan is made from.
    pub facts: ObservedFacts,
    /// The server, for the steps.
    pub server: Option<Server>,
    /// The server is unknown because its `DatabaseServer` is not ready.
    pub server_not_ready: bool,
    /// Why something could not be read, if so.
    pub unread: Option<Reason>,
    /// The access level that PostgreSQL shows to be in force.
    pub in_force: Option<AccessLevel>,
    /// What was changed by hand, for the Event.
    pub drift: Vec<Mismatch>,
    /// The database that a new tenant should take over.
    pub takeover: Option<Inspection>,
}

impl<'a> Observed<'a> {
    /// The database was restored: it is verified in this reconcile, before the drift check records that.
    fn require_verification(&mut self) {
        if let Some(record) = &mut self.subject.record {
            record.verification_required = true;
        }
        if let Observation::Known(registry) = &mut self.facts.registry {
            registry.verification_required = true;
        }
    }

    /// Nothing but the registry was read.
    fn registry_only(subject: Subject<'a>, registry: Observation<RegistryFacts>) -> Self {
        let facts = ObservedFacts {
            registry,
            server: Observation::Absent,
            connection_secret: SecretFacts::Absent,
            reader: ReaderFacts::default(),
        };
        Self {
            subject,
            facts,
            server: None,
            server_not_ready: false,
            unread: None,
            in_force: None,
            drift: Vec::new(),
            takeover: None,
        }
    }
}

/// Reads everything that the plan needs.
pub async fn observe<'a>(mut subject: Subject<'a>, context: &SharedContext) -> Observed<'a> {
    let Some(record) = subject.record.clone() else { return observe_new(subject, context).await };
    subject.evaluation = Some(evaluate(subject.tenant, Some(&record), context));
    observe_registered(subject, &record, context).await
}

/// Before anything is registered for a new tenant, its server must have passed the preflight.
async fn observe_new<'a>(subject: Subject<'a>, context: &SharedContext) -> Observed<'a> {
    let server = subject.desired.as_ref().map(|desired| ready_server(&desired.server, context));
    let mut observed = Observed::registry_only(subject, Observation::Absent);
    let server = match server {
        Some(Ok(server)) => server,
        Some(Err(message)) => {
            observed.facts.server = Observation::Unknown(message);
            observed.server_not_ready = true;
            return observed;
        }
        None => return observed,
    };
    let subject = &observed.subject;
    if let Some(adopt) = subject.tenant.spec.adopt.as_ref().filter(|_| !subject.is_deprovisioning()) {
        match inspect(subject, adopt, &server, None, context).await {
            Ok(inspection) => observed.takeover = Some(inspection),
            Err(error) => {
                observed.unread = Some(error.reason());
                observed.facts.server = Observation::Unknown(error.to_string());
            }
        }
    }
    observed
}

/// The server of this name, or why it is not ready.
fn ready_server(name: &str, context: &SharedContext) -> Result<Server, String> {
    match context.state.servers.get(name) {
        ServerState::Ready(server) => Ok(server),
        ServerState::NotReady { message, .. } => Err(message),
        ServerState::Unchecked => Err(format!("DatabaseServer {name:?} was not checked yet")),
    }
}

/// Observes a tenant that has a row.
async fn observe_registered<'a>(
    subject: Subject<'a>,
    record: &TenantRecord,
    context: &SharedContext,
) -> Observed<'a> {
    let registry = Observation::Known(registry_facts(record, &subject, context));
    let rotation = record.rotation(subject.tenant, context.clock.now());
    let mut observed = Observed::registry_only(subject, registry);
    if record.status == RegistryStatus::Deprovisioned {
        return observed;
    }
    match ready_server(&record.placement.server, context) {
        Err(message) => {
            observed.facts.server = Observation::Unknown(message);
            observed.server_not_ready = true;
        }
        Ok(server) => {
            let restricts = observed.subject.must_restrict();
            let reading = if restricts { server.for_restriction() } else { server.clone() };
            match server_facts(&reading, record, context).await {
                Ok(facts) => {
                    if facts.is_restored(RecordedOids::of(record)) {
                        observed.require_verification();
                    }
                    let expected = Expected::of(record, observed.subject.wanted_access(), &rotation);
                    if record.status.was_active() && !observed.subject.is_deprovisioning() {
                        observed.drift = drift::mismatches(&facts, &expected);
                    }
                    observed.in_force = drift::access_in_force(&facts, expected.recorded);
                    observed.facts.server = Observation::Known(drift::server_facts(&facts, &expected));
                }
                Err(error) => {
                    if error.is_unreachable() {
                        context.state.servers.request_check(&record.placement.server);
                    }
                    observed.unread = Some(error.reason());
                    observed.facts.server = Observation::Unknown(error.to_string());
                }
            }
            observed.server = Some(server);
        }
    }
    let secret = secret_facts(&observed.subject, record, observed.server.as_ref(), context);
    observed.facts.connection_secret = secret;
    observed.facts.reader = reader_facts(&observed.subject, record, observed.server.as_ref(), context);
    observed
}

async fn server_facts(
    server: &Server,
    record: &TenantRecord,
    context: &SharedContext,
) -> Result<TenantFacts, postgres::Error> {
    if let Some(facts) = context.state.snapshot.facts(record) {
        return Ok(facts);
    }
    server.observe_recorded(&record.placement, RecordedOids::of(record)).await
}

fn registry_facts(record: &TenantRecord, subject: &Subject<'_>, context: &SharedContext) -> RegistryFacts {
    let access = subject.access();
    let rotation = record.rotation(subject.tenant, context.clock.now());
    let declared_current = subject.desired.as_ref().is_none_or(|desired| {
        record.name == desired.display_name
            && access.is_none_or(|access| record.gates == access.gates)
            && record.settings == desired.settings
            && record.retain == desired.retain
    });
    RegistryFacts {
        status: record.status,
        seed_digest: seed_in_force(record, subject, context),
        modules_current: !migrates_now(subject, record, context),
        purges_current: !is_due(&subject.tenant.spec.purge_modules, &record.module_purges),
        declared_current,
        slug_current: record.slug == subject.tenant.spec.slug,
        slug_refused: record.last_failure == Some(Reason::SlugTaken),
        plan_current: subject.entitlements().is_none()
            || record.entitlements.as_ref() == subject.entitlements(),
        plan_recorded: record.entitlements.is_some(),
        has_verifier: record.password_verifier.is_some(),
        database_recorded: record.database_exists,
        activated: record.activated_at.is_some(),
        access_recorded: record.access == Some(subject.wanted_access()),
        recorded_access: record.access,
        state_current: access
            .is_none_or(|access| record.status == access.state && record.status_reason == access.summary()),
        tombstone: record.terms(),
        departed_at: record.deprovisioned_at,
        hastened_at: record.purge_hastened_at,
        purging: record.purge_started_at.is_some(),
        preserved: record.legal_hold().is_some(),
        rolling_back: record.rolling_back,
        takeover: record.takeover,
        verification_required: record.verification_required
            || context.state.retries.is_requested(subject.tenant),
        rotation_due: rotation.is_due,
        previous: rotation.previous,
    }
}

/// The digest of what is seeded; none if the admins' credentials have to be issued again, because their Secret was lost,
/// changed or not used in time.
fn seed_in_force(record: &TenantRecord, subject: &Subject<'_>, context: &SharedContext) -> Option<String> {
    let seed = SeedRecord::parse(record.seed_digest.as_ref()?);
    let namespace = subject.tenant.namespace().unwrap_or_default();
    let name = spec::admin_secret_name(&subject.tenant.name_any());
    let secret = context.stores.scopes.secret(&namespace, &name);
    let content = secret.and_then(|secret| admin_content::content_digest(&secret));
    seed.credentials_intact(content.as_deref(), context.clock.now()).then_some(seed.digest)
}

fn secret_facts(
    subject: &Subject<'_>,
    record: &TenantRecord,
    server: Option<&Server>,
    context: &SharedContext,
) -> SecretFacts {
    let name = spec::connection_secret_name(subject.tenant);
    let Some(secret) = own_secret(subject, record, &name, context) else { return SecretFacts::Absent };
    let login = &record.placement.login;
    if secrets::holds_password_of(&secret, record, &context.installation)
        && server.is_none_or(|server| is_as_written(&secret, login, subject, record, server, context))
    {
        SecretFacts::Current
    } else {
        SecretFacts::Stale
    }
}

fn reader_facts(
    subject: &Subject<'_>,
    record: &TenantRecord,
    server: Option<&Server>,
    context: &SharedContext,
) -> ReaderFacts {
    let name = spec::reader_secret_name(subject.tenant);
    let secret = record.placement.reader_login.as_ref().zip(own_secret(subject, record, &name, context));
    ReaderFacts {
        is_wanted: spec::wants_reader(subject.tenant),
        is_recorded: record.placement.reader_login.is_some(),
        is_published: secret.is_some_and(|(login, secret)| {
            secrets::holds_reader_password_of(&secret, record, &context.installation)
                && server.is_none_or(|server| is_as_written(&secret, login, subject, record, server, context))
        }),
    }
}

/// The Secret of this name from the watch's store, if it has the tenant's label.
fn own_secret(
    subject: &Subject<'_>,
    record: &TenantRecord,
    name: &str,
    context: &SharedContext,
) -> Option<Arc<Secret>> {
    let namespace = subject.tenant.namespace().unwrap_or_default();
    let secret = context.stores.scopes.secret(&namespace, name)?;
    (secret.labels().get(LABEL_TENANT_ID) == Some(&record.id.to_string())).then_some(secret)
}

/// Whether a Secret of this login is as the operator would write it.
fn is_as_written(
    secret: &Secret,
    login: &str,
    subject: &Subject<'_>,
    record: &TenantRecord,
    server: &Server,
    context: &SharedContext,
) -> bool {
    secrets::password(secret).is_some_and(|password| {
        let connection = Connection { tenant: subject.tenant, record, login, password: &password, server };
        let wanted = connection.secret(&secret.name_any(), context);
        secrets::is_as_wanted(secret, &wanted)
            || secrets::is_of_earlier_release(secret, &wanted) && !completes_secret(subject, record, context)
    })
}
