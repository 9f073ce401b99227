//! The extensions that a module needs: what is in a database and on its server, and what has to be done.

use serde::Deserialize;
use sqlx::{PgConnection, types::Json};

use crate::{
    modules::Extension,
    postgres::{
        error::{Error, Result},
        identifier::{Ident, Literal, Script},
        session::connect::{STATEMENT_LIMIT, with_timeout},
    },
};

const DOING: &str = "read the extensions";

/// An extension that the server has.
#[derive(Debug, Deserialize)]
pub(super) struct ExtensionState {
    pub(super) name: String,
    /// The versions that can be installed.
    versions: Vec<String>,
    /// The version in the database.
    installed: Option<String>,
    /// Its schema there.
    schema: Option<String>,
}

/// What has to be done for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExtensionAction {
    Nothing,
    /// In the version that is wanted, or else the server's default.
    Create,
    /// To the version that is wanted.
    Update,
}

const STATES: &str = "\
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'name', a.name,
    'versions', ARRAY(SELECT v.version::text FROM pg_catalog.pg_available_extension_versions AS v WHERE v.name = a.name
                      ORDER BY v.version),
    'installed', e.extversion, 'schema', n.nspname)), '[]')
FROM (SELECT name::text FROM pg_catalog.pg_available_extensions UNION SELECT extname::text FROM pg_catalog.pg_extension) AS a
LEFT JOIN pg_catalog.pg_extension AS e ON e.extname = a.name
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
WHERE a.name = ANY ($1)";

/// Reads the state of the extensions that are wanted.
pub(super) async fn read(session: &mut PgConnection, wanted: &[Extension]) -> Result<Vec<ExtensionState>> {
    let query = sqlx::query_scalar(STATES).bind(names(wanted)).fetch_one(session);
    let Json(states) = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
    Ok(states)
}

/// The schemas that the extensions are in.
pub(super) async fn schemas(session: &mut PgConnection, wanted: &[Extension]) -> Result<Vec<String>> {
    let query = "SELECT DISTINCT n.nspname::text FROM pg_catalog.pg_extension AS e
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
                 WHERE e.extname = ANY ($1) AND n.nspname <> 'pg_catalog' ORDER BY 1";
    let query = sqlx::query_scalar(query).bind(names(wanted)).fetch_all(session);
    with_timeout(STATEMENT_LIMIT, DOING, query).await
}

fn names(wanted: &[Extension]) -> Vec<&str> {
    wanted.iter().map(|extension| extension.name.as_str()).collect()
}

/// What has to be done for an extension, or why it cannot be had.
pub(super) fn decide(wanted: &Extension, found: Option<&ExtensionState>) -> Result<ExtensionAction, String> {
    let Some(found) = found else {
        return Err(format!(
            "the server does not have it: install its package there, or enable it at the provider (SELECT * FROM \
             pg_available_extensions WHERE name = '{}' shows it then), or correct its name in spec.extensions, or remove \
             it there",
            wanted.name
        ));
    };
    let version = wanted.version.as_deref();
    let is_known = |version: &str| found.versions.iter().any(|known| known == version);
    match (&found.installed, version) {
        (Some(installed), Some(version)) if installed == version => {}
        (_, Some(version)) if !is_known(version) => {
            return Err(format!(
                "the server does not have version {version}: there are {}",
                found.versions.join(", ")
            ));
        }
        (Some(_), Some(_)) => return Ok(ExtensionAction::Update),
        (None, _) => return Ok(ExtensionAction::Create),
        (Some(_), None) => {}
    }
    match (&wanted.schema, &found.schema) {
        (Some(wanted_schema), Some(schema)) if wanted_schema != schema => Err(format!(
            "it is in schema {schema} there, not {wanted_schema}: leave the schema out of spec.extensions, name \
             {schema}, or move it, as a superuser: ALTER EXTENSION {} SET SCHEMA {wanted_schema}",
            wanted.name
        )),
        _ => Ok(ExtensionAction::Nothing),
    }
}

/// The statements of an action.
pub(super) fn script(
    action: ExtensionAction,
    wanted: &Extension,
    name: &Ident,
    schema: &Ident,
) -> Result<Script> {
    let version = wanted.version.as_deref().map(Literal::new).transpose()?;
    Ok(match (action, version) {
        (ExtensionAction::Nothing, _) | (ExtensionAction::Update, None) => Script::new(),
        (ExtensionAction::Create, None) => {
            Script::of("CREATE EXTENSION IF NOT EXISTS {} WITH SCHEMA {} CASCADE", &[name, schema])
        }
        (ExtensionAction::Create, Some(version)) => Script::of(
            "CREATE EXTENSION IF NOT EXISTS {} WITH SCHEMA {} VERSION {} CASCADE",
            &[name, schema, &version],
        ),
        (ExtensionAction::Update, Some(version)) => {
            Script::of("ALTER EXTENSION {} UPDATE TO {}", &[name, &version])
        }
    })
}

/// What an administrator does where the owner of the database was refused.
pub(super) fn refused(statement: &Script, action: ExtensionAction, database: &str, error: &Error) -> String {
    let statement = statement.sql();
    let statement = statement.as_str();
    match action {
        ExtensionAction::Create if error.sql_state().as_deref() == Some("42501") => format!(
            "PostgreSQL does not trust it to the owner of a database. As a superuser, run this in template1, so that new \
             tenants have it, and in the database of each tenant: {statement} ({error})"
        ),
        _ => format!("as a superuser, run in {database}: {statement} ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(version: Option<&str>, schema: Option<&str>) -> Extension {
        Extension { name: "citext".into(), version: version.map(Into::into), schema: schema.map(Into::into) }
    }

    fn state(installed: Option<&str>) -> ExtensionState {
        ExtensionState {
            name: "citext".into(),
            versions: vec!["1.5".into(), "1.6".into()],
            installed: installed.map(Into::into),
            schema: installed.map(|_| "public".to_owned()),
        }
    }

    #[test]
    fn extension_is_created_updated_or_left() {
        let decide = |wanted: &Extension, state: &ExtensionState| decide(wanted, Some(state));
        for (version, installed, action) in [
            (None, None, ExtensionAction::Create),
            (Some("1.5"), None, ExtensionAction::Create),
            (None, Some("1.5"), ExtensionAction::Nothing),
            (Some("1.6"), Some("1.6"), ExtensionAction::Nothing),
            (Some("1.6"), Some("1.5"), ExtensionAction::Update),
            // Its files are gone from the server, and what is installed works.
            (Some("1.4"), Some("1.4"), ExtensionAction::Nothing),
        ] {
            let found = decide(&wanted(version, None), &state(installed));
            assert_eq!(found, Ok(action), "{version:?} {installed:?}");
        }
    }

    #[test]
    fn extension_that_cannot_be_had_is_named_with_the_remedy() {
        let cases = [
            (decide(&wanted(None, None), None), "install its package"),
            (decide(&wanted(Some("2"), None), Some(&state(None))), "there are 1.5, 1.6"),
            (decide(&wanted(None, Some("app")), Some(&state(Some("1.6")))), "SET SCHEMA app"),
        ];
        for (found, expected) in cases {
            assert!(found.clone().is_err_and(|text| text.contains(expected)), "{found:?}");
        }
        assert_eq!(
            decide(&wanted(None, Some("public")), Some(&state(Some("1.6")))),
            Ok(ExtensionAction::Nothing)
        );
    }
}
