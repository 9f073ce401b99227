//! The schemas that an installation has for the optional modules that ship with Tenantry.

use std::{collections::BTreeMap, str::FromStr};

use super::{modules::INTERNAL, names::MAX_IDENTIFIER_BYTES};

/// The schema of a module that names no other.
pub const PUBLIC: &str = "public";

/// The optional modules that ship with Tenantry, in the order in which they are applied.
pub const OPTIONAL: [&str; 3] = ["core", "identity", "projects"];

/// The schema of each module; of one that is not named, `public`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleSchemas(BTreeMap<String, String>);

/// A list that names no schemas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleSchemasError {
    /// It has another form.
    #[error("{0:?} is not a module and its schema: write it as in core=app_core,identity=app_identity")]
    Form(String),
    /// No such module ships with Tenantry.
    #[error(
        "no module {module:?} ships with Tenantry: name some of {}; the schema of a module of your own is spec.schema of its TenantModule",
        OPTIONAL.join(", ")
    )]
    UnknownModule {
        /// The module.
        module: String,
    },
    /// A module is named again.
    #[error("module {0:?} is named twice: name its schema once")]
    Twice(String),
    /// No module may be there.
    #[error("module {module:?} cannot have its objects in schema {schema:?}: {why}; name another schema")]
    Schema {
        /// The module.
        module: String,
        /// The schema.
        schema: String,
        /// Why.
        why: &'static str,
    },
}

impl ModuleSchemas {
    /// The schema of a module.
    pub fn of(&self, module: &str) -> &str {
        self.0.get(module).map_or(PUBLIC, String::as_str)
    }
}

impl FromStr for ModuleSchemas {
    type Err = ModuleSchemasError;

    /// Reads a list such as `core=app_core,identity=app_identity`. An empty one names none.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let mut schemas = BTreeMap::new();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (module, schema) =
                entry.split_once('=').ok_or_else(|| ModuleSchemasError::Form(entry.to_owned()))?;
            let (module, schema) = (module.trim().to_owned(), schema.trim().to_owned());
            if !OPTIONAL.contains(&module.as_str()) {
                return Err(ModuleSchemasError::UnknownModule { module });
            }
            if let Some(why) = forbidden_schema(&schema).or_else(|| other_form(&schema)) {
                return Err(ModuleSchemasError::Schema { module, schema, why });
            }
            if schemas.insert(module.clone(), schema).is_some() {
                return Err(ModuleSchemasError::Twice(module));
            }
        }
        Ok(Self(schemas))
    }
}

/// Why no module may have its objects in this schema.
pub fn forbidden_schema(schema: &str) -> Option<&'static str> {
    match schema {
        "" => Some("a schema has a name"),
        _ if schema.len() > MAX_IDENTIFIER_BYTES => Some("its name has more than 63 bytes"),
        _ if schema.contains('\0') => Some("its name has a NUL character"),
        INTERNAL => Some("Tenantry's own tables are there"),
        "information_schema" => Some("it is PostgreSQL's"),
        _ if schema.starts_with("pg_") => Some("names that begin with pg_ are PostgreSQL's"),
        _ => None,
    }
}

/// Why a name is none that `spec.schema` of a TenantModule may have.
fn other_form(schema: &str) -> Option<&'static str> {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_valid = schema.chars().all(is_inner) && !schema.starts_with(|c: char| c.is_ascii_digit());
    (!is_valid).then_some("its name must consist of a-z, 0-9 and '_', and not start with a digit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_named_by_module() {
        let schemas: ModuleSchemas = " core=app_core, identity=_users2 ,".parse().unwrap();
        let of = ["core", "identity", "projects", "tenantry"].map(|module| schemas.of(module));
        assert_eq!(of, ["app_core", "_users2", "public", "public"]);
        assert_eq!("".parse::<ModuleSchemas>().unwrap(), ModuleSchemas::default());
        assert_eq!("core=public".parse::<ModuleSchemas>().unwrap().of("core"), "public");
    }

    #[test]
    fn wrong_list_says_what_is_right() {
        for (list, message) in [
            ("core", "\"core\" is not a module and its schema: write it as in core=app_core"),
            (
                "core=a,billing=b",
                "no module \"billing\" ships with Tenantry: name some of core, identity, projects;",
            ),
            ("tenantry=a", "no module \"tenantry\" ships"),
            ("=a", "no module \"\" ships"),
            ("core=a,core=a", "module \"core\" is named twice"),
            ("core=", "in schema \"\": a schema has a name"),
            ("core=tenantry", "in schema \"tenantry\": Tenantry's own tables are there; name another schema"),
            ("core=pg_app", "names that begin with pg_ are PostgreSQL's"),
            ("core=information_schema", "it is PostgreSQL's"),
            ("core=App", "must consist of a-z, 0-9 and '_'"),
            ("core=2a", "not start with a digit"),
            ("core=a'b", "must consist of"),
            ("core=a\"b", "must consist of"),
        ] {
            let error = list.parse::<ModuleSchemas>().unwrap_err().to_string();
            assert!(error.contains(message), "{list}: {error}");
        }
        assert!(format!("core={}", "a".repeat(64)).parse::<ModuleSchemas>().is_err());
    }
}
