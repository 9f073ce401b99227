//! What a connection Secret has of the tenant's modules: the version of each, and where its tables are. Key names are part of
//! the API.

use std::borrow::Cow;

use crate::domain::{module_schemas::PUBLIC, record::ModuleVersion};

/// The keys of versions begin with it.
const VERSION: &str = "schema.";

/// The keys of schemas begin with it.
pub const SCHEMA: &str = "module-schema.";

/// Whether a key is one of these.
pub fn is_key(key: &str) -> bool {
    key.starts_with(VERSION) || key.starts_with(SCHEMA)
}

/// The entries of a module: the version that an application can compare with the one that it needs, under its name if it has
/// one, and the schema of its tables if that is not `public`.
pub fn entries(
    module: &ModuleVersion,
    version_name: Option<String>,
    schema: Option<String>,
) -> impl Iterator<Item = (Cow<'static, str>, String)> + use<> {
    let version = version_name.unwrap_or_else(|| module.version.to_string());
    let schema = schema.filter(|schema| schema != PUBLIC);
    let schema = schema.map(|schema| (format!("{SCHEMA}{}", module.name).into(), schema));
    [(format!("{VERSION}{}", module.name).into(), version)].into_iter().chain(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_version_and_where_the_tables_are() {
        let shown = |name: &str, version_name: Option<&str>, schema: Option<&str>| {
            let module = ModuleVersion { name: name.into(), version: 4 };
            let (version_name, schema) = (version_name.map(str::to_owned), schema.map(str::to_owned));
            let entries: Vec<_> = entries(&module, version_name, schema).collect();
            assert!(entries.iter().all(|(key, _)| is_key(key)));
            entries.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(shown("tenantry", None, None), ["schema.tenantry=4"]);
        assert_eq!(shown("core", None, Some("public")), ["schema.core=4"]);
        let elsewhere = ["schema.core=2026.1", "module-schema.core=app_core"];
        assert_eq!(shown("core", Some("2026.1"), Some("app_core")), elsewhere);
    }
}
