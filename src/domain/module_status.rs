//! The tenants of a module, and when its rollout stops; and the modules in a tenant's status. Pure.

use super::{
    module_refusal::ModuleRefusal,
    modules::{ChosenModule, KnownModule, ModuleKind, ModuleSelection, Offer, version_of},
    plan_adoption::{TenantNames, rests},
    record::ModuleVersion,
    workflow::attempt::ModuleFailure,
};
use crate::api::{
    module_image::ModuleImageStatus,
    tenant::Tenant,
    tenant_module::{ModuleSourceKind, ModuleTenants},
    tenant_status::{ModuleState, ModuleStatus, TenantState, TenantStatus},
};

/// A rollout stops beyond this number of tenants on which it failed, and beyond this share.
const TOLERATED: usize = 3;
const TOLERATED_PERCENT: usize = 5;

/// What became of a module's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleReport {
    /// The generation of the TenantModule that was read.
    pub generation: Option<i64>,
    /// Where its files come from.
    pub kind: Option<ModuleSourceKind>,
    /// The newest file in the source.
    pub latest: Option<i32>,
    /// The image that was read.
    pub image: Option<ModuleImageStatus>,
    /// Whether tenants get it.
    pub content: ContentState,
}

/// Whether tenants get the content that was read last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentState {
    /// They do.
    Accepted,
    /// It is being rehearsed, or waits for that; why.
    Rehearsing(String),
    /// The source could not be read, and is tried again: they keep what was accepted before.
    Unavailable(ModuleRefusal),
    /// They do not.
    Refused(ModuleRefusal),
}

/// The tenants that have a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleAdoption {
    /// How many, and how far.
    pub tenants: ModuleTenants,
    /// Those on which a file failed.
    pub failed: TenantNames,
}

impl ModuleAdoption {
    /// Counts the tenants of a module.
    pub fn of<'a>(name: &str, tenants: impl IntoIterator<Item = &'a Tenant>) -> Self {
        let mut adoption = Self::default();
        let none = TenantStatus::default();
        for tenant in tenants {
            let status = tenant.status.as_ref().unwrap_or(&none);
            let Some(module) = status.modules.iter().find(|module| module.name == name) else { continue };
            let is_paused = tenant.spec.paused == Some(true)
                && !matches!(status.state, Some(TenantState::Deprovisioning | TenantState::Deprovisioned));
            if rests(tenant, status) && !is_paused {
                continue;
            }
            adoption.tenants.total += 1;
            if module.version >= module.target {
                adoption.tenants.current += 1;
                continue;
            }
            adoption.tenants.behind += 1;
            if module.state == Some(ModuleState::Failed) {
                adoption.tenants.failed += 1;
                adoption.failed.add(tenant);
            }
        }
        adoption
    }

    /// Whether it failed on too many of them.
    pub fn is_stopped(&self) -> bool {
        let total = usize::try_from(self.tenants.total).unwrap_or(usize::MAX);
        let failed = self.failed.count;
        failed > TOLERATED && failed * 100 > total * TOLERATED_PERCENT
    }
}

/// What the modules in a tenant's status follow from.
pub struct ModuleFacts<'a> {
    /// The recorded versions.
    pub recorded: &'a [ModuleVersion],
    /// The modules that the tenant should have.
    pub selection: &'a ModuleSelection,
    /// The modules that exist.
    pub known: &'a [KnownModule],
    /// What the status showed before.
    pub previous: &'a [ModuleStatus],
    /// What failed in this reconcile.
    pub failures: &'a [ModuleFailure],
    /// The modules were applied in this reconcile.
    pub is_applied: bool,
    /// The name of a version, of a module whose migrations a tool applies.
    pub version_name: &'a dyn Fn(&str, i32) -> Option<String>,
    /// The Secret with the login of the tenant's pipeline.
    pub migration_secret: &'a str,
    /// That Secret or its login is missing, and will be made.
    pub is_login_due: bool,
    /// What the run of a module's tool does in the tenant's database, while there is one.
    pub run: &'a dyn Fn(&str) -> Option<String>,
}

/// The modules for a tenant's status. `is_stopped` is asked for modules of which the tenant lacks something.
pub fn module_statuses(facts: &ModuleFacts<'_>, is_stopped: impl Fn(&str) -> bool) -> Vec<ModuleStatus> {
    let chosen = facts.selection.modules.iter().map(|module| chosen_status(module, facts, &is_stopped));
    let is_chosen = |name: &str| facts.selection.modules.iter().any(|module| module.name == name);
    let others = facts.recorded.iter().filter(|module| !is_chosen(&module.name));
    chosen.chain(others.map(|module| held_status(module, facts))).collect()
}

fn chosen_status(
    module: &ChosenModule,
    facts: &ModuleFacts<'_>,
    is_stopped: &impl Fn(&str) -> bool,
) -> ModuleStatus {
    let name = &module.name;
    let version = version_of(facts.recorded, name);
    let status = |state, message: Option<String>| ModuleStatus {
        name: name.clone(),
        version: i64::from(version),
        target: i64::from(module.version),
        version_name: (facts.version_name)(name, version),
        target_name: (facts.version_name)(name, module.version),
        state: Some(state),
        message,
    };
    if version >= module.version {
        return status(ModuleState::Current, None);
    }
    if let Some(message) = (facts.run)(name) {
        return status(ModuleState::Running, Some(message));
    }
    let known = facts.known.iter().find(|known| known.name == *name);
    let failure = facts.failures.iter().find(|failure| failure.module == *name);
    // The pipeline can begin once its login is there, and not before.
    let can_report = || !facts.is_login_due || awaited_before(module, facts).is_some();
    if known.is_some_and(|known| known.kind == ModuleKind::External)
        && failure.map_or_else(can_report, |failure| failure.waits)
    {
        return status(ModuleState::AwaitingReport, Some(awaits_report(module, failure, facts)));
    }
    if let Some(failure) = failure {
        let state = if failure.waits { ModuleState::Pending } else { ModuleState::Failed };
        return status(state, Some(failure.message.clone()));
    }
    let before = facts.previous.iter().find(|before| before.name == *name);
    let failed = before.filter(|before| before.state == Some(ModuleState::Failed));
    if let Some(failed) = failed.filter(|failed| failed.version == i64::from(version) && !facts.is_applied) {
        return status(ModuleState::Failed, failed.message.clone());
    }
    let depends_on = known.map(|known| &known.depends_on);
    let stopped = [name].into_iter().chain(depends_on.into_iter().flatten()).find(|name| is_stopped(name));
    match stopped {
        Some(stopped) => status(
            ModuleState::Held,
            Some(format!(
                "module {stopped} failed on too many tenants: `kubectl describe tmod {stopped}` says how to go on"
            )),
        ),
        None => status(ModuleState::Pending, None),
    }
}

/// The module as the status showed it before, if the tenant waited for a report of the same version.
fn awaited_before<'a>(module: &ChosenModule, facts: &ModuleFacts<'a>) -> Option<&'a ModuleStatus> {
    facts.previous.iter().find(|before| {
        before.name == module.name
            && before.target == i64::from(module.version)
            && before.state == Some(ModuleState::AwaitingReport)
    })
}

/// What a tenant waits for whose pipeline has not reported a version.
fn awaits_report(module: &ChosenModule, found: Option<&ModuleFailure>, facts: &ModuleFacts<'_>) -> String {
    let name = &module.name;
    let before = awaited_before(module, facts).and_then(|before| before.message.clone());
    if let Some(before) = before.filter(|_| found.is_none()) {
        return before;
    }
    let version = (facts.version_name)(name, module.version).unwrap_or_default();
    let found = found.map(|found| format!("; {}", found.message)).unwrap_or_default();
    format!(
        "your pipeline has not reported version {version}{found}: it migrates the database with the login of Secret {}, and then runs SELECT tenantry.report_version('{name}', '{version}')",
        facts.migration_secret
    )
}

/// A module that the tenant has and that cannot be applied: what the tenant has of it stays.
fn held_status(module: &ModuleVersion, facts: &ModuleFacts<'_>) -> ModuleStatus {
    let version = i64::from(module.version);
    let known = facts.known.iter().find(|known| known.name == module.name).map(|known| known.offer);
    let before = facts.previous.iter().find(|before| before.name == module.name);
    let why = match known {
        // A mistake of the module's author changes no tenant.
        Some(_) if before.is_some_and(|before| before.version == version && before.state.is_some()) => {
            return before.cloned().unwrap_or_default();
        }
        Some(Offer::NotReady { .. } | Offer::Ready { .. }) => "is not Ready: see its conditions",
        None => "does not exist any more: apply it again for new versions",
    };
    ModuleStatus {
        name: module.name.clone(),
        version,
        target: version,
        version_name: (facts.version_name)(&module.name, module.version),
        target_name: (facts.version_name)(&module.name, module.version),
        state: Some(ModuleState::Held),
        message: Some(format!("TenantModule {:?} {why}; what the tenant has of it stays", module.name)),
    }
}

/// Why not all modules are at their target versions, if so, apart from failures.
pub fn describe_behind(modules: &[ModuleStatus]) -> Option<String> {
    let behind: Vec<String> = modules
        .iter()
        .filter(|module| module.version < module.target)
        .map(|module| match &module.message {
            Some(message) => format!("{}: {message}", module.name),
            None => {
                let ModuleStatus { name, version, target, .. } = module;
                match &module.target_name {
                    Some(target) => format!("{name} waits for version {target}, and its turn comes"),
                    None => format!("{name} is at version {version} of {target}, and its turn comes"),
                }
            }
        })
        .collect();
    (!behind.is_empty()).then(|| behind.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tenant(name: &str, version: i64, state: &str) -> Tenant {
        let module = json!({"name": "wiki", "version": version, "target": 2, "state": state});
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name, "namespace": "customers"},
            "spec": {"slug": "abc", "displayName": "A", "plan": "free"},
            "status": {"state": "Active", "modules": [module]},
        }))
        .unwrap()
    }

    #[test]
    fn rollout_stops_beyond_three_tenants_and_five_percent() {
        let of = |current: usize, failed: usize| {
            let current = (0..current).map(|n| tenant(&format!("c{n}"), 2, "Current"));
            let failed = (0..failed).map(|n| tenant(&format!("f{n}"), 1, "Failed"));
            let all: Vec<Tenant> = current.chain(failed).collect();
            ModuleAdoption::of("wiki", &all)
        };
        assert!(!of(0, 3).is_stopped());
        assert!(of(0, 4).is_stopped());
        assert!(!of(76, 4).is_stopped());
        assert!(of(75, 4).is_stopped());
        let tenants = of(5, 2).tenants;
        assert_eq!((tenants.total, tenants.current, tenants.behind, tenants.failed), (7, 5, 2, 2));
    }

    fn versions(list: &[(&str, i32)]) -> Vec<ModuleVersion> {
        list.iter().map(|(name, version)| ModuleVersion { name: (*name).into(), version: *version }).collect()
    }

    fn known(name: &str, depends_on: &[&str], offer: Offer) -> KnownModule {
        let depends_on = depends_on.iter().map(|name| (*name).to_owned()).collect();
        KnownModule {
            name: name.into(),
            depends_on,
            minimum_versions: std::collections::BTreeMap::new(),
            is_default: false,
            kind: ModuleKind::Files,
            offer,
        }
    }

    fn shown(facts: &ModuleFacts<'_>, stopped: &str) -> Vec<(String, i64, Option<ModuleState>)> {
        let statuses = module_statuses(facts, |name| name == stopped);
        statuses.into_iter().map(|module| (module.name, module.target, module.state)).collect()
    }

    #[test]
    fn state_says_whether_a_module_will_be_applied() {
        let known = [
            known("wiki", &[], Offer::Ready { target: 2 }),
            known("pages", &["wiki"], Offer::Ready { target: 4 }),
            known("broken", &[], Offer::NotReady { was_accepted: true }),
        ];
        let chosen = |name: &str, version| ChosenModule { name: name.into(), version };
        let selection = ModuleSelection { modules: vec![chosen("wiki", 2), chosen("pages", 4)], error: None };
        let recorded = versions(&[("wiki", 1), ("pages", 3), ("broken", 5), ("gone", 6)]);
        let facts = ModuleFacts {
            recorded: &recorded,
            selection: &selection,
            known: &known,
            previous: &[],
            failures: &[],
            is_applied: false,
            version_name: &|_, _| None,
            migration_secret: "acme-db-migrate",
            is_login_due: false,
            run: &|_| None,
        };
        let of = |wiki, pages| {
            let held = Some(ModuleState::Held);
            [("wiki", 2, Some(wiki)), ("pages", 4, Some(pages)), ("broken", 5, held), ("gone", 6, held)]
                .map(|(name, target, state)| (name.to_owned(), target, state))
        };
        assert_eq!(shown(&facts, ""), of(ModuleState::Pending, ModuleState::Pending));
        assert_eq!(shown(&facts, "wiki"), of(ModuleState::Held, ModuleState::Held));
        let failure =
            |module: &str, waits| ModuleFailure { module: module.into(), message: "x".into(), waits };
        let failures = [failure("wiki", false), failure("pages", true)];
        let failed = ModuleFacts { failures: &failures, ..facts };
        assert_eq!(shown(&failed, ""), of(ModuleState::Failed, ModuleState::Pending));
        // It stays until the module is applied.
        let previous = module_statuses(&failed, |_| false);
        let later = ModuleFacts { previous: &previous, failures: &[], ..failed };
        assert_eq!(shown(&later, "wiki")[0].2, Some(ModuleState::Failed));
        assert_eq!(shown(&ModuleFacts { is_applied: true, ..later }, "")[0].2, Some(ModuleState::Pending));
    }

    #[test]
    fn awaited_report_names_the_version_and_the_way() {
        let external =
            KnownModule { kind: ModuleKind::External, ..known("shop", &[], Offer::Ready { target: 2 }) };
        let selection =
            ModuleSelection { modules: vec![ChosenModule { name: "shop".into(), version: 2 }], error: None };
        let recorded = versions(&[("shop", 1)]);
        let facts = ModuleFacts {
            recorded: &recorded,
            selection: &selection,
            known: &[external],
            previous: &[],
            failures: &[],
            is_applied: true,
            version_name: &|_, version| Some(format!("2026.{version}")),
            migration_secret: "acme-db-migrate",
            is_login_due: false,
            run: &|_| None,
        };
        let found =
            ModuleFailure { module: "shop".into(), message: "it has reported 2026.1".into(), waits: true };
        let looked =
            module_statuses(&ModuleFacts { failures: std::slice::from_ref(&found), ..facts }, |_| false);
        let message = looked[0].message.clone().unwrap();
        assert!(
            message.contains("not reported version 2026.2; it has reported 2026.1: ")
                && message.contains("Secret acme-db-migrate")
                && message.ends_with("tenantry.report_version('shop', '2026.2')"),
            "{message}"
        );
        assert_eq!(looked[0].state, Some(ModuleState::AwaitingReport));
        assert_eq!(
            (looked[0].version_name.as_deref(), looked[0].target_name.as_deref()),
            (Some("2026.1"), Some("2026.2"))
        );
        // Before its login is there, the pipeline can do nothing.
        let early = ModuleFacts { is_login_due: true, is_applied: false, ..facts };
        assert_eq!(module_statuses(&early, |_| false)[0].state, Some(ModuleState::Pending));
        let kept = module_statuses(&ModuleFacts { previous: &looked, ..early }, |_| false);
        assert_eq!(kept, looked);
        // It stays without another look, and a failure is shown as one.
        assert_eq!(
            module_statuses(&ModuleFacts { previous: &looked, failures: &[], ..facts }, |_| false),
            looked
        );
        let running = ModuleFacts { run: &|_| Some("Job a/b".into()), ..facts };
        let running = module_statuses(&running, |_| false);
        assert_eq!(
            (running[0].state, running[0].message.as_deref()),
            (Some(ModuleState::Running), Some("Job a/b"))
        );
        let failed = [ModuleFailure { waits: false, ..found }];
        let failed = module_statuses(&ModuleFacts { failures: &failed, ..facts }, |_| false);
        assert_eq!(failed[0].state, Some(ModuleState::Failed));
    }

    #[test]
    fn mistake_of_an_author_changes_no_tenant() {
        let known = [known("broken", &[], Offer::NotReady { was_accepted: true })];
        let (recorded, selection) = (versions(&[("broken", 5)]), ModuleSelection::default());
        let previous = [ModuleStatus {
            name: "broken".into(),
            version: 5,
            target: 5,
            state: Some(ModuleState::Current),
            ..ModuleStatus::default()
        }];
        let facts = ModuleFacts {
            recorded: &recorded,
            selection: &selection,
            known: &known,
            previous: &previous,
            failures: &[],
            is_applied: false,
            version_name: &|_, _| None,
            migration_secret: "acme-db-migrate",
            is_login_due: false,
            run: &|_| None,
        };
        assert_eq!(module_statuses(&facts, |_| false), previous);
        let gone = module_statuses(&ModuleFacts { known: &[], ..facts }, |_| false);
        assert!(gone[0].message.as_ref().unwrap().contains("does not exist any more"), "{gone:?}");
        assert_eq!(describe_behind(&gone), None);
    }
}
