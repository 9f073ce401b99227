//! `spec.purgeModules`: which modules are dropped from a tenant's database, and which are not. Pure.
//!
//! Each name counts once, for what the tenant has when it is written: what became of it is recorded, and a name that was
//! refused does not become due by a later change of a plan. It counts again after it was removed and written again.

pub mod losses;

use std::collections::BTreeSet;

use super::{
    modules::{INTERNAL, KnownModule, ModuleKind, ModuleWishes, places, wanted},
    record::ModuleVersion,
    recorded_purge::{RecordedPurge, RecordedPurges},
};

/// Why a module is not dropped from a tenant's database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeRefusal {
    /// The internal module.
    #[error("it has Tenantry's own tables: remove the name from spec.purgeModules")]
    Internal,
    /// A list gives it to the tenant.
    #[error(
        "{0} gave it to the tenant when this was decided: take it off that list if it is still there, or give the tenant a list of its own in spec.modules"
    )]
    Listed(String),
    /// A module that the tenant keeps depends on it.
    #[error("module {0:?} depends on it, and the tenant keeps that one: name it in spec.purgeModules too")]
    Needed(String),
    /// A legal hold keeps the tenant's data.
    #[error("{0} keeps the tenant's data: delete the TenantHold")]
    LegalHold(String),
    /// It shares its schema, and its files are not known, so that its objects are not.
    #[error(
        "it shares schema {schema:?} with others, and which objects there are its own is not known without the files that were applied: apply its TenantModule with them, or drop its objects by hand"
    )]
    Unknown {
        /// The schema.
        schema: String,
    },
    /// It shares its schema, and a tool of its own made its objects.
    #[error(
        "it shares schema {schema:?} with others, and its own tool made its objects, so that which of them are its own is not known: drop them by hand, or give the module a schema of its own"
    )]
    MadeByTool {
        /// The schema.
        schema: String,
    },
    /// Something that is not the module's would be lost or changed with it.
    #[error("these depend on it, and are not its own: {}: drop or change them", some(.0))]
    Dependents(Vec<String>),
    /// Objects that cannot be dropped here.
    #[error("these are not dropped by Tenantry: {}: drop them by hand", some(.0))]
    Undroppable(Vec<String>),
}

/// How a name that was refused counts again.
const AGAIN: &str = "then remove the name from spec.purgeModules and write it again; nothing was dropped";

impl PurgeRefusal {
    /// The whole message: what to do, and how the name counts again if it can.
    pub fn message(&self) -> String {
        match self {
            Self::Internal => format!("{self}; nothing was dropped"),
            _ => format!("{self}, {AGAIN}"),
        }
    }
}

/// What is said of a name that the tenant has no module of.
pub fn absent(name: &str, has: &[ModuleVersion]) -> String {
    let has: Vec<&str> = has.iter().map(|module| &*module.name).filter(|name| *name != INTERNAL).collect();
    let has = if has.is_empty() { "no module".to_owned() } else { has.join(", ") };
    format!(
        "spec.purgeModules: the tenant has no module {name:?}, so that nothing was dropped; it has {has}: correct the \
         name, or remove it"
    )
}

/// The maximum of objects in a message.
const SHOWN: usize = 5;

fn some(objects: &[String]) -> String {
    let shown = objects.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match objects.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The names without a final answer.
fn open<'a>(named: &'a [String], recorded: &'a RecordedPurges) -> impl Iterator<Item = &'a String> {
    let is_open = |name: &&String| matches!(recorded.get(*name), None | Some(RecordedPurge::Begun { .. }));
    named.iter().filter(is_open)
}

/// Whether what is recorded is not what became of these names.
pub fn is_due(named: &[String], recorded: &RecordedPurges) -> bool {
    open(named, recorded).next().is_some() || recorded.keys().any(|name| !named.contains(name))
}

/// The names that need an answer, in the order in which they are dropped: what depends on a module is dropped before it.
/// `known` is sorted: a module comes after those that it depends on.
pub fn order(named: &[String], recorded: &RecordedPurges, known: &[KnownModule]) -> Vec<String> {
    let position = |name: &str| known.iter().position(|module| module.name == name).unwrap_or(usize::MAX);
    let mut names: Vec<String> = open(named, recorded).cloned().collect();
    names.sort_by_key(|name| std::cmp::Reverse(position(name)));
    names.dedup();
    names
}

/// Why a module must stay, if it must: it is Tenantry's own, a list gives it to the tenant, a module that the tenant keeps
/// depends on it, or a legal hold keeps the data. `legal_holds` names those.
pub fn refusal(
    name: &str,
    wishes: ModuleWishes<'_>,
    has: &[ModuleVersion],
    known: &[KnownModule],
    legal_holds: Option<String>,
) -> Option<PurgeRefusal> {
    if name == INTERNAL {
        return Some(PurgeRefusal::Internal);
    }
    if let Some(holds) = legal_holds {
        return Some(PurgeRefusal::LegalHold(holds));
    }
    if let Some(place) = places(wishes, known).get(name) {
        return Some(PurgeRefusal::Listed(place.clone()));
    }
    let kept: Vec<ModuleVersion> = has.iter().filter(|module| module.name != name).cloned().collect();
    let wanted: BTreeSet<&str> = wanted(wishes, &kept, known);
    let needs = |module: &&KnownModule| {
        wanted.contains(module.name.as_str()) && module.depends_on.iter().any(|needed| needed == name)
    };
    known.iter().find(needs).map(|module| PurgeRefusal::Needed(module.name.clone()))
}

/// The other modules whose objects may be in a tenant's database, whatever is recorded: those that it has or is wanted to
/// have, those whose drop began, and every module of a tool, since a run may have ended before its version was recorded.
pub fn others_there(
    name: &str,
    wishes: ModuleWishes<'_>,
    has: &[ModuleVersion],
    purges: &RecordedPurges,
    known: &[KnownModule],
) -> BTreeSet<String> {
    let kept: Vec<ModuleVersion> = has.iter().filter(|module| module.name != name).cloned().collect();
    let begun = purges.iter().filter(|(_, state)| matches!(state, RecordedPurge::Begun { .. }));
    let of_tools = known.iter().filter(|module| module.kind != ModuleKind::Files);
    let mut others: BTreeSet<String> = wanted(wishes, &kept, known).into_iter().map(str::to_owned).collect();
    others.extend(kept.into_iter().map(|module| module.name));
    others.extend(begun.map(|(module, _)| module.clone()));
    others.extend(of_tools.map(|module| module.name.clone()));
    others.remove(name);
    others
}

/// The module's schema, if no other module's objects are there. `others` are the schemas of [the others](others_there).
pub fn own_schema<'a>(schema: &'a str, others: &[&str]) -> Option<&'a str> {
    (schema != "public" && !others.contains(&schema)).then_some(schema)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{api::tenant::ModuleChoice, domain::modules::Offer};

    fn known() -> Vec<KnownModule> {
        let module = |name: &str, depends_on: &[&str]| KnownModule {
            name: name.into(),
            depends_on: depends_on.iter().map(|name| (*name).to_owned()).collect(),
            minimum_versions: BTreeMap::new(),
            is_default: name == "core",
            kind: ModuleKind::Files,
            offer: Offer::Ready { target: 3 },
        };
        vec![
            module(INTERNAL, &[]),
            module("core", &[]),
            module("base", &[]),
            module("billing", &["base"]),
            KnownModule { offer: Offer::NotReady { was_accepted: true }, ..module("broken", &["base"]) },
        ]
    }

    fn refused(name: &str, tenant: &[&str], plan: &[&str], has: &[&str]) -> Option<String> {
        let choice = |name: &&str| ModuleChoice { name: (*name).to_owned(), version: None };
        let tenant: Vec<ModuleChoice> = tenant.iter().map(choice).collect();
        let of_plan: Vec<String> = plan.iter().map(|name| (*name).to_owned()).collect();
        let wishes = ModuleWishes { tenant: &tenant, plan: "gold", of_plan: &of_plan };
        let has: Vec<ModuleVersion> =
            has.iter().map(|name| ModuleVersion { name: (*name).to_owned(), version: 1 }).collect();
        refusal(name, wishes, &has, &known(), None).map(|refusal| refusal.to_string())
    }

    #[test]
    fn what_the_tenant_should_have_is_not_dropped() {
        let has = ["core", "base", "billing"];
        assert_eq!(refused("billing", &["core"], &[], &has), None);
        let says =
            |refused: Option<String>, words: &str| assert!(refused.unwrap().contains(words), "{words}");
        says(refused("billing", &["billing"], &[], &has), "spec.modules gave it");
        says(refused("billing", &[], &["billing"], &has), "TenantPlan \"gold\" gave it");
        says(refused("core", &[], &[], &has), "the list of default modules gave it");
        says(refused("base", &["core"], &[], &has), "module \"billing\" depends on it");
        assert_eq!(refused("base", &["core"], &[], &["core", "base"]), None);
        // Also one whose content is not accepted now, and one that the tenant is to get.
        says(refused("base", &["core"], &[], &["core", "base", "broken"]), "module \"broken\" depends");
        says(refused("base", &["billing"], &[], &["core", "base"]), "module \"billing\" depends");
        says(refused(INTERNAL, &["core"], &[], &has), "Tenantry's own");
        // One that no TenantModule describes any more.
        assert_eq!(refused("gone", &["core"], &[], &["core", "gone"]), None);
        let wishes = ModuleWishes { tenant: &[], plan: "", of_plan: &[] };
        let held = refusal("billing", wishes, &[], &known(), Some("legal hold \"case-7\"".into()));
        assert!(held.unwrap().to_string().starts_with("legal hold \"case-7\" keeps"));
    }

    #[test]
    fn name_counts_once_until_it_is_written_again() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let answers = |state: RecordedPurge| RecordedPurges::from([("base".to_owned(), state)]);
        let refused = answers(RecordedPurge::Refused { why: "x".into() });
        let begun = answers(RecordedPurge::Begun { schema: None });
        for (named, recorded, is_due_now) in [
            (&["base"][..], &RecordedPurges::new(), true),
            (&["base"], &begun, true),
            (&["base"], &answers(RecordedPurge::Purged), false),
            (&["base"], &refused, false),
            (&["base", "billing"], &refused, true),
            // It is forgotten, so that it counts when it is written again.
            (&[], &refused, true),
            (&[], &RecordedPurges::new(), false),
        ] {
            assert_eq!(is_due(&names(named), recorded), is_due_now, "{named:?} {recorded:?}");
        }
        let named = names(&["base", "gone", "billing"]);
        assert_eq!(order(&named, &RecordedPurges::new(), &known()), ["gone", "billing", "base"]);
        assert_eq!(order(&named, &refused, &known()), ["gone", "billing"]);
    }

    #[test]
    fn message_says_whether_the_name_can_count_again() {
        let listed = PurgeRefusal::Listed("spec.modules".into()).message();
        assert!(listed.ends_with("and write it again; nothing was dropped"), "{listed}");
        let stays =
            "it has Tenantry's own tables: remove the name from spec.purgeModules; nothing was dropped";
        assert_eq!(PurgeRefusal::Internal.message(), stays);
        let has = [INTERNAL, "core", "base"].map(|name| ModuleVersion { name: name.into(), version: 1 });
        let text = absent("bililng", &has);
        assert!(
            text.contains("no module \"bililng\"") && text.contains("it has core, base: correct"),
            "{text}"
        );
        assert!(absent("x", &[]).contains("it has no module"));
    }

    #[test]
    fn schema_is_a_modules_own_if_no_other_shares_it() {
        assert_eq!(own_schema("billing", &["public", "wiki"]), Some("billing"));
        assert_eq!(own_schema("billing", &["billing"]), None);
        assert_eq!(own_schema("public", &[]), None);
    }

    #[test]
    fn others_are_those_that_may_have_objects_there_without_a_record() {
        let mut known = known();
        known.push(KnownModule { name: "shop".into(), kind: ModuleKind::External, ..known[2].clone() });
        let has = ["core", "base", "gone"].map(|name| ModuleVersion { name: name.to_owned(), version: 1 });
        let wished = [ModuleChoice { name: "billing".into(), version: None }];
        let wishes = ModuleWishes { tenant: &wished, plan: "", of_plan: &[] };
        let purges = RecordedPurges::from([
            ("half".to_owned(), RecordedPurge::Begun { schema: None }),
            ("dropped".to_owned(), RecordedPurge::Purged),
            ("core".to_owned(), RecordedPurge::Begun { schema: None }),
        ]);
        let others = others_there("core", wishes, &has, &purges, &known);
        // "shop" was neither reported nor wished; "broken" is none that the tenant should have.
        assert_eq!(Vec::from_iter(&others), ["base", "billing", "gone", "half", "shop", "tenantry"]);
        assert!(!others_there("shop", wishes, &has, &purges, &known).contains("shop"));
    }

    #[test]
    fn message_shows_a_few_objects() {
        let many: Vec<String> = (0..7).map(|n| format!("view public.v{n}")).collect();
        let text = PurgeRefusal::Dependents(many).to_string();
        assert!(text.contains("public.v4 and 2 more: drop or change them"), "{text}");
    }
}
