//! The choice of a tenant's modules.

use super::*;

fn module(name: &str, target: i32, depends_on: &[&str]) -> KnownModule {
    KnownModule {
        name: name.into(),
        depends_on: depends_on.iter().map(|name| (*name).to_owned()).collect(),
        minimum_versions: BTreeMap::new(),
        is_default: false,
        kind: ModuleKind::Files,
        offer: Offer::Ready { target },
    }
}

fn known() -> Vec<KnownModule> {
    let default = |module| KnownModule { is_default: true, ..module };
    let refused = |was_accepted| Offer::NotReady { was_accepted };
    vec![
        module(INTERNAL, 3, &[]),
        default(module("core", 3, &[])),
        default(module("identity", 4, &["core"])),
        default(module("projects", 1, &["identity"])),
        module("base", 2, &[]),
        module("billing", 7, &["base"]),
        KnownModule { offer: refused(true), ..module("broken", 1, &[]) },
        KnownModule { offer: refused(false), ..default(module("new", 1, &[])) },
    ]
}

fn has(versions: &[(&str, i32)]) -> Vec<ModuleVersion> {
    versions.iter().map(|(name, version)| ModuleVersion { name: (*name).into(), version: *version }).collect()
}

fn choose_for(tenant: &[(&str, &str)], plan: &[&str], versions: &[(&str, i32)]) -> ModuleSelection {
    let tenant: Vec<ModuleChoice> = tenant
        .iter()
        .map(|(name, version)| ModuleChoice {
            name: (*name).into(),
            version: (!version.is_empty()).then(|| (*version).into()),
        })
        .collect();
    let of_plan: Vec<String> = plan.iter().map(|name| (*name).to_owned()).collect();
    let wishes = ModuleWishes { tenant: &tenant, plan: "gold", of_plan: &of_plan };
    choose(wishes, &has(versions), &known())
}

fn names(selection: &ModuleSelection) -> Vec<(&str, i32)> {
    selection.modules.iter().map(|module| (module.name.as_str(), module.version)).collect()
}

#[test]
fn tenant_replaces_plan_and_plan_replaces_defaults() {
    let (always, core, identity) = ((INTERNAL, 3), ("core", 3), ("identity", 4));
    assert_eq!(names(&choose_for(&[], &[], &[])), [always, core, identity, ("projects", 1)]);
    assert_eq!(names(&choose_for(&[], &["core"], &[])), [always, core]);
    assert_eq!(names(&choose_for(&[], &["identity"], &[])), [always, core, identity]);
    let billing = [always, ("base", 2), ("billing", 7)];
    assert_eq!(names(&choose_for(&[], &["billing"], &[])), billing, "with what it depends on");
    assert_eq!(names(&choose_for(&[("billing", "")], &["projects"], &[])), billing);
    assert_eq!(choose_for(&[("billing", "")], &["wikis"], &[]).error, None, "the plan's list has no effect");
}

#[test]
fn what_a_tenant_has_stays() {
    let selection = choose_for(&[], &["core"], &[("billing", 3), ("broken", 1), ("gone", 9)]);
    assert_eq!(names(&selection), [(INTERNAL, 3), ("core", 3), ("base", 2), ("billing", 7)]);
    assert_eq!(selection.error, None);
}

#[test]
fn pin_keeps_a_version_and_undoes_none() {
    let version = |pin: &str, has: &[(&str, i32)]| {
        choose_for(&[("billing", pin)], &[], has).modules.last().unwrap().version
    };
    assert_eq!(version("5", &[]), 5);
    assert_eq!(version("5", &[("billing", 6)]), 6);
    assert_eq!(version("", &[]), 7);
    assert_eq!(version("8", &[("billing", 6)]), 6);
    let error = choose_for(&[("billing", "8")], &[], &[]).error.unwrap();
    assert!(error.to_string().contains("version 8, which does not exist: name one from 1 to 7"), "{error}");
    // An older release of the operator has fewer files.
    assert!(!is_behind(&has(&[("core", 9)]), &[ChosenModule { name: "core".into(), version: 3 }]));
}

#[test]
fn module_waits_for_the_versions_that_it_needs() {
    let needs = |name: &str, on: &str, minimum| KnownModule {
        minimum_versions: BTreeMap::from([(on.to_owned(), minimum)]),
        ..module(name, 2, &[on])
    };
    let known = [module("base", 5, &[]), needs("shop", "base", 4), module("reports", 1, &["shop"])];
    let pinned = |version: Option<&str>| {
        let choice = |name: &str, version: Option<&str>| ModuleChoice {
            name: name.to_owned(),
            version: version.map(str::to_owned),
        };
        [choice("base", version), choice("reports", None)]
    };
    let of = |version: Option<&str>, versions: &[(&str, i32)]| {
        let wishes = ModuleWishes { tenant: &pinned(version), plan: "", of_plan: &[] };
        let selection = choose(wishes, &has(versions), &known);
        let modules = selection.modules.into_iter().map(|module| (module.name, module.version));
        (modules.collect::<Vec<_>>(), selection.error.map(|error| error.to_string()))
    };
    let list = |modules: &[(&str, i32)]| -> Vec<(String, i32)> {
        modules.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect()
    };
    let all = list(&[("base", 5), ("shop", 2), ("reports", 1)]);
    assert_eq!(of(None, &[]), (all, None));
    let exact = list(&[("base", 4), ("shop", 2), ("reports", 1)]);
    assert_eq!(of(Some("4"), &[]), (exact, None));
    // Neither the module nor what depends on it is applied; both are named.
    let (modules, error) = of(Some("3"), &[]);
    assert_eq!(modules, list(&[("base", 3)]));
    let error = error.unwrap();
    assert!(error.starts_with("module \"shop\" needs version 4 of module \"base\""), "{error}");
    assert!(error.contains("at version 3 of: raise or remove its version in spec.modules"), "{error}");
    // What the tenant has of it stays; what is at its target needs nothing.
    let (modules, error) = of(Some("3"), &[("shop", 1), ("reports", 1)]);
    assert_eq!(modules, list(&[("base", 3), ("shop", 1), ("reports", 1)]));
    assert!(error.is_some());
    assert_eq!(of(Some("3"), &[("shop", 2), ("reports", 1)]).1, None);
}

#[test]
fn unknown_and_unready_modules_are_reported() {
    let error = choose_for(&[], &["projects", "wikis"], &[]).error.unwrap().to_string();
    assert!(
        error.contains("TenantPlan \"gold\" names the unknown module \"wikis\": name some of core, "),
        "{error}"
    );
    let error = choose_for(&[("gone", "")], &[], &[("gone", 3)]).error.unwrap().to_string();
    assert!(error.ends_with("what the tenant has of it, version 3, stays"), "{error}");
    let error = choose_for(&[("broken", "")], &[], &[]).error.unwrap();
    assert!(matches!(error, ModuleError::NotReady { .. }), "{error}");
    assert_eq!(choose_for(&[("broken", "")], &[], &[("broken", 1)]).error, None, "it has it already");
    assert_eq!(choose_for(&[], &[], &[]).error, None, "a new default module delays no tenant");
}

#[test]
fn stopped_module_and_its_dependents_are_held_back() {
    let known = known();
    let held = |has: &[(&str, i32)], stopped: &str| {
        let mut selection = choose_for(&[("billing", "")], &[], has);
        hold_back(&mut selection, &self::has(has), &known, |name| name == stopped);
        names(&selection).into_iter().map(|(name, version)| (name.to_owned(), version)).collect::<Vec<_>>()
    };
    let of = |list: &[(&str, i32)]| {
        list.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect::<Vec<_>>()
    };
    let always = (INTERNAL, 3);
    assert_eq!(held(&[("base", 1), ("billing", 5)], "base"), of(&[always, ("base", 1), ("billing", 5)]));
    assert_eq!(held(&[("base", 2), ("billing", 5)], "base"), of(&[always, ("base", 2), ("billing", 7)]));
    assert_eq!(held(&[], "base"), of(&[always]));
}

#[test]
fn applied_versions_replace_recorded_ones() {
    let recorded = has(&[("gone", 4), ("core", 2)]);
    assert_eq!(
        with_applied(&recorded, &has(&[("core", 3), ("wiki", 1)])),
        has(&[("core", 3), ("wiki", 1), ("gone", 4)])
    );
}
