//! The status of a TenantModule. Pure: what became of its content, its tenants, and the time.

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{
        conditions::{
            ConditionStatus::{self, False, True, Unknown},
            READY, RECONCILING, REHEARSED, STALLED, condition, remove_condition, same_ignoring_times,
            set_condition,
        },
        reason::Reason,
        tenant_module::{ModuleSourceKind, TenantModule, TenantModuleStatus},
    },
    domain::{
        accepted_module::AcceptedModule,
        module_status::{ContentState, ModuleAdoption, ModuleReport},
    },
};

/// The refusals that a rehearsal leads to.
const BY_REHEARSAL: [Reason; 3] =
    [Reason::RehearsalFailed, Reason::UnsafeMigration, Reason::ExtensionNotFound];

/// What may end without a change by a user.
const BY_ITSELF: [Reason; 2] = [Reason::SourceUnreachable, Reason::KubernetesApiError];

/// The status after an evaluation.
pub fn next_status(
    module: &TenantModule,
    report: &ModuleReport,
    accepted: Option<&AcceptedModule>,
    metered: Option<Vec<String>>,
    adoption: &ModuleAdoption,
    now: Timestamp,
) -> TenantModuleStatus {
    let generation = report.generation;
    let is_of_tool = matches!(report.kind, Some(ModuleSourceKind::Job | ModuleSourceKind::External));
    let is_built_in = report.kind == Some(ModuleSourceKind::BuiltIn);
    let version = accepted
        .map(|accepted| accepted.version)
        .or_else(|| report.latest.filter(|_| is_built_in && report.content == ContentState::Accepted));
    let mut conditions = module.status.as_ref().map_or_else(Vec::new, |status| status.conditions.clone());
    let mut set = |type_, status: ConditionStatus, reason, message: String| {
        set_condition(&mut conditions, condition(type_, status, reason, message, generation, now));
    };
    let mut working: Option<(Reason, String)> = None;
    let mut stalled: Option<(Reason, String)> = None;
    match &report.content {
        ContentState::Accepted => {
            let version = version.map(|version| shown_version(accepted, version)).unwrap_or_default();
            let message = match report.kind {
                Some(ModuleSourceKind::Job) => {
                    format!("new tenants are cloned with version {version}, which its Job has applied")
                }
                Some(ModuleSourceKind::External) => {
                    format!("tenants are not Ready until version {version} was reported for them")
                }
                _ => format!("the content up to version {version} is accepted"),
            };
            set(READY, True, Reason::Accepted, message);
            if !is_built_in {
                let message = match report.kind {
                    Some(ModuleSourceKind::Job) => "its Job has succeeded on a template",
                    Some(ModuleSourceKind::External) => {
                        "its schema and its extensions can be had; what your pipeline does is not rehearsed"
                    }
                    _ => "nothing was found that a module may not do",
                };
                set(REHEARSED, True, Reason::Verified, message.to_owned());
            }
            if adoption.is_stopped() {
                stalled = Some((Reason::RolloutHalted, halted(&version, is_of_tool, adoption)));
            } else if adoption.tenants.behind > 0 {
                let (current, total) = (adoption.tenants.current, adoption.tenants.total);
                let message = format!("{current} of {total} tenants are at their target version");
                working = Some((Reason::RolloutRunning, message));
            }
        }
        ContentState::Rehearsing(why) => {
            set(READY, False, Reason::Rehearsing, why.clone());
            set(REHEARSED, Unknown, Reason::Rehearsing, why.clone());
            working = Some((Reason::Rehearsing, why.clone()));
        }
        ContentState::Unavailable(refusal) => {
            let (reason, message) = (refusal.reason(), refusal.to_string());
            set(READY, False, reason, message.clone());
            if BY_ITSELF.contains(&reason) {
                working = Some((reason, message));
            } else {
                stalled = Some((reason, message));
            }
        }
        ContentState::Refused(refusal) => {
            let (reason, message) = (refusal.reason(), refusal.to_string());
            set(READY, False, reason, message.clone());
            if BY_REHEARSAL.contains(&reason) {
                set(REHEARSED, False, reason, message.clone());
            } else if !is_built_in {
                set(REHEARSED, Unknown, Reason::NotReached, "the content was refused before".to_owned());
            }
            stalled = Some((reason, message));
        }
    }
    if let Some((reason, message)) = &working {
        set(RECONCILING, True, *reason, message.clone());
    }
    if let Some((reason, message)) = &stalled {
        set(STALLED, True, *reason, message.clone());
    }
    if working.is_none() {
        remove_condition(&mut conditions, RECONCILING);
    }
    if stalled.is_none() {
        remove_condition(&mut conditions, STALLED);
    }
    TenantModuleStatus {
        observed_generation: generation,
        source: report.kind,
        // The digest of a tag must outlive the process.
        image: report.image.clone().or_else(|| {
            let before = module.status.as_ref()?.image.clone();
            before.filter(|_| report.kind == Some(ModuleSourceKind::Image))
        }),
        version: version.map(|version| shown_version(accepted, version)),
        latest: report.latest.map(|latest| match module.spec.version.as_ref() {
            Some(version) if is_of_tool => version.clone(),
            _ => latest.to_string(),
        }),
        schema: accepted.map(|accepted| accepted.schema.clone()),
        digest: accepted.map(|accepted| accepted.digest.clone()),
        limits: metered.filter(|_| !is_of_tool),
        rehearsal: accepted.and_then(|accepted| accepted.rehearsal.clone()),
        tenants: Some(adoption.tenants),
        conditions,
    }
}

/// A version as people write it.
fn shown_version(accepted: Option<&AcceptedModule>, version: i32) -> String {
    let mut names = accepted.into_iter().flat_map(AcceptedModule::version_names);
    names
        .find(|(number, _)| *number == version)
        .map_or_else(|| version.to_string(), |(_, name)| name.to_owned())
}

fn halted(version: &str, is_of_tool: bool, adoption: &ModuleAdoption) -> String {
    let (what, remedy) = if is_of_tool {
        ("the tool", "or give the corrected migrations a new spec.version")
    } else {
        ("a file", "or correct the file and begin it with `-- tenantry: replaces <checksum>`")
    };
    format!(
        "{what} failed on {} of {} tenants ({}), so that no other tenant gets version {version}: status.modules of those tenants has the error; correct their data, {remedy}; the rollout goes on by itself once it fails on fewer",
        adoption.failed.count,
        adoption.tenants.total,
        adoption.failed.names()
    )
}

/// Whether two statuses are the same apart from their times.
pub fn same(a: &TenantModuleStatus, b: &TenantModuleStatus) -> bool {
    let strip = |status: &TenantModuleStatus| {
        let mut status = status.clone();
        let conditions = std::mem::take(&mut status.conditions);
        (status, conditions)
    };
    let ((a, a_conditions), (b, b_conditions)) = (strip(a), strip(b));
    a == b && same_ignoring_times(&a_conditions, &b_conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{conditions::find_condition, module_image::ModuleImageStatus, tenant::Tenant},
        domain::module_refusal::ModuleRefusal,
    };
    use serde_json::json;

    fn module() -> TenantModule {
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantModule",
            "metadata": {"name": "wiki", "generation": 3},
            "spec": {"source": {"configMaps": [{"name": "wiki-1"}]}},
        }))
        .unwrap()
    }

    fn tenants(count: usize, failed: usize) -> ModuleAdoption {
        let tenant = |n: usize| -> Tenant {
            let (version, state) = if n < failed { (1, "Failed") } else { (2, "Current") };
            serde_json::from_value(json!({
                "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
                "metadata": {"name": format!("t{n}"), "namespace": "customers"},
                "spec": {"slug": "abc", "displayName": "A", "plan": "free"},
                "status": {"modules": [{"name": "wiki", "version": version, "target": 2, "state": state}]},
            }))
            .unwrap()
        };
        ModuleAdoption::of("wiki", &(0..count).map(tenant).collect::<Vec<_>>())
    }

    fn status(content: ContentState, adoption: &ModuleAdoption) -> TenantModuleStatus {
        let kind = Some(ModuleSourceKind::ConfigMaps);
        let report = ModuleReport { generation: Some(3), kind, latest: Some(2), image: None, content };
        let accepted = AcceptedModule { version: 2, digest: "d".into(), ..AcceptedModule::default() };
        next_status(&module(), &report, Some(&accepted), None, adoption, Timestamp::UNIX_EPOCH)
    }

    fn shown(status: &TenantModuleStatus) -> Vec<(&str, &str, &str)> {
        let shown = |type_| {
            let found = find_condition(&status.conditions, type_)?;
            Some((type_, found.status.as_str(), found.reason.as_str()))
        };
        [READY, REHEARSED, RECONCILING, STALLED].into_iter().filter_map(shown).collect()
    }

    #[test]
    fn accepted_module_is_ready_while_its_tenants_follow() {
        let (ready, rehearsed) = (("Ready", "True", "Accepted"), ("Rehearsed", "True", "Verified"));
        let done = status(ContentState::Accepted, &tenants(3, 0));
        assert_eq!(shown(&done), [ready, rehearsed]);
        assert_eq!((done.version.as_deref(), done.tenants.unwrap().current), (Some("2"), 3));
        let behind = status(ContentState::Accepted, &tenants(9, 2));
        assert_eq!(shown(&behind), [ready, rehearsed, ("Reconciling", "True", "RolloutRunning")]);
        let halted = status(ContentState::Accepted, &tenants(9, 4));
        assert_eq!(shown(&halted), [ready, rehearsed, ("Stalled", "True", "RolloutHalted")]);
        let message = &find_condition(&halted.conditions, STALLED).unwrap().message;
        assert!(
            message.contains("4 of 9 tenants (customers/t0, customers/t1, customers/t2 and 1 more)"),
            "{message}"
        );
        assert!(same(&done, &done) && !same(&done, &behind));
    }

    #[test]
    fn image_that_cannot_be_pulled_keeps_its_digest() {
        let digest = || ModuleImageStatus { reference: "a:1".into(), digest: "sha256:1".into() };
        let mut module = module();
        module.status = Some(TenantModuleStatus { image: Some(digest()), ..TenantModuleStatus::default() });
        let after = |reason, kind| {
            let content = ContentState::Unavailable(ModuleRefusal::Found { reason, message: "x".into() });
            let report =
                ModuleReport { generation: Some(3), kind: Some(kind), latest: None, image: None, content };
            next_status(&module, &report, None, None, &ModuleAdoption::default(), Timestamp::UNIX_EPOCH)
        };
        let away = after(Reason::SourceUnreachable, ModuleSourceKind::Image);
        assert_eq!(
            shown(&away),
            [("Ready", "False", "SourceUnreachable"), ("Reconciling", "True", "SourceUnreachable")]
        );
        assert_eq!(away.image, Some(digest()));
        let refused = after(Reason::SourceUnauthorized, ModuleSourceKind::Image);
        assert_eq!(shown(&refused)[1], ("Stalled", "True", "SourceUnauthorized"));
        assert_eq!(after(Reason::SourceUnreachable, ModuleSourceKind::Directory).image, None);
    }

    #[test]
    fn refused_content_is_stalled_with_its_reason() {
        let found =
            ModuleRefusal::Found { reason: Reason::RehearsalFailed, message: "0002_b.sql line 1".into() };
        let refused = status(ContentState::Refused(found), &tenants(3, 0));
        assert_eq!(
            shown(&refused),
            [
                ("Ready", "False", "RehearsalFailed"),
                ("Rehearsed", "False", "RehearsalFailed"),
                ("Stalled", "True", "RehearsalFailed")
            ]
        );
        let gap = ModuleRefusal::Gap { missing: 2, file: "0003_c.sql".into() };
        let refused = status(ContentState::Refused(gap), &tenants(3, 0));
        assert_eq!(
            shown(&refused)[..2],
            [("Ready", "False", "VersionGap"), ("Rehearsed", "Unknown", "NotReached")]
        );
        let waits = status(ContentState::Rehearsing("no server".into()), &tenants(0, 0));
        assert_eq!(shown(&waits)[2], ("Reconciling", "True", "Rehearsing"));
    }
}
