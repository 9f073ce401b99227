//! The modules of one tenant.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{
    bootstrap::BOOTSTRAP,
    module::Module,
    sources::{INTERNAL, embedded, internal},
};
use crate::domain::record::ModuleVersion;

/// The modules of a tenant, in the order in which they are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSet {
    modules: Vec<Module>,
    digest: String,
}

impl ModuleSet {
    /// A set of the given modules, in that order. The internal module is always the first.
    pub fn new(mut modules: Vec<Module>) -> Self {
        if modules.first().is_none_or(|module| module.name != INTERNAL) {
            modules.insert(0, internal());
        }
        let digest = digest(modules.iter().map(Module::fingerprint));
        Self { modules, digest }
    }

    /// Every module that ships with Tenantry: all are on by default.
    pub fn built_in() -> Self {
        Self::new(embedded())
    }

    /// The modules, in order.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The digest of the whole content: 24 hexadecimal digits. The template database is named by it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The versions that a tenant should have.
    pub fn targets(&self) -> Vec<ModuleVersion> {
        let target =
            |module: &Module| ModuleVersion { name: module.name.to_string(), version: module.target() };
        self.modules.iter().map(target).collect()
    }
}

/// The digest of a set, from the fingerprints of its modules.
pub(super) fn digest(fingerprints: impl IntoIterator<Item: AsRef<[u8]>>) -> String {
    let mut hash = Sha256::new();
    // A template also contains the bootstrap SQL: when that changes, it is another template.
    hash.update(BOOTSTRAP.as_bytes());
    for fingerprint in fingerprints {
        hash.update(fingerprint.as_ref());
    }
    hash.finalize()[..12].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::module::{Extension, Migration};

    fn module(name: &'static str, version: i32, sql: &'static str) -> Module {
        Module::new(name, vec![Migration { version, file: "f".into(), sql: sql.into() }])
    }

    fn digest_of(modules: &[&Module]) -> String {
        ModuleSet::new(modules.iter().map(|module| (*module).clone()).collect()).digest().to_owned()
    }

    #[test]
    fn digest_follows_names_order_versions_and_text() {
        let (a, b) = (module("a", 1, "x"), module("b", 1, "y"));
        let one = digest_of(&[&a, &b]);
        assert_eq!(one, digest_of(&[&a, &b]));
        assert_eq!(one.len(), 24);
        for other in [&[&b, &a][..], &[&a], &[&a, &module("b", 2, "y")], &[&a, &module("b", 1, "z")]] {
            assert_ne!(one, digest_of(other));
        }
        let elsewhere = Module { schema: "app".into(), ..b.clone() };
        let extension = |version: Option<&str>, schema: Option<&str>| Module {
            extensions: vec![Extension {
                name: "citext".into(),
                version: version.map(Into::into),
                schema: schema.map(Into::into),
            }],
            ..b.clone()
        };
        let (any, version, schema) =
            (extension(None, None), extension(Some("1"), None), extension(None, Some("1")));
        let digests: Vec<String> =
            [&b, &elsewhere, &any, &version, &schema].map(|other| digest_of(&[&a, other])).into();
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
    }

    #[test]
    fn internal_module_is_first_and_there_once() {
        let set = ModuleSet::new(vec![module("a", 1, "x")]);
        let names: Vec<&str> = set.modules().iter().map(|module| module.name.as_ref()).collect();
        assert_eq!(names, [INTERNAL, "a"]);
        assert_eq!(ModuleSet::new(set.modules().to_vec()), set);
        assert_eq!(ModuleSet::new(vec![]).modules(), [internal()]);
    }

    /// Templates on servers are named by it: another digest would have every template built again.
    #[test]
    fn digest_of_a_known_set_is_stable() {
        let fingerprints = [module("a", 1, "x"), module("b", 1, "y")].map(|module| module.fingerprint());
        assert_eq!(digest(fingerprints), "c8e28c9b8aeb51a1801af5da");
    }
}
