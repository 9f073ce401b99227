//! The setup as SQL to run by hand: the statements that the program runs.

use std::fmt::Write;

use super::points::{self, Point, SetupOptions, Statement};
use crate::postgres::{
    error::Result,
    identifier::{Script, ScriptLiteral},
};

/// What runs the SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlFormat {
    /// A script for psql, which can be run again.
    Psql,
    /// Lists for `spec.bootstrap.initdb` of a CloudNativePG Cluster, for a new server.
    CloudNativePg,
}

const PSQL_HEAD: &str = "\
-- The setup of a PostgreSQL server for Tenantry, for psql, as an administrator. It can be run again.
-- It goes on after a statement that this administrator may not run.
";

const CLOUD_NATIVE_PG_HEAD: &str = "# For spec.bootstrap.initdb of a CloudNativePG Cluster: a new server.\n";

/// The setup as text. The operator's password is in it as a SCRAM verifier.
pub fn print_setup(options: &SetupOptions, format: SqlFormat) -> Result<String> {
    let (postgres, template1) = (points::in_postgres(options)?, points::in_template1());
    Ok(match format {
        SqlFormat::Psql => {
            format!("{PSQL_HEAD}{}{}", psql("postgres", &postgres), psql("template1", &template1))
        }
        SqlFormat::CloudNativePg => format!(
            "{CLOUD_NATIVE_PG_HEAD}{}{}",
            list("postInitSQL", &postgres),
            list("postInitTemplateSQL", &template1)
        ),
    })
}

fn psql(database: &str, points: &[Point]) -> String {
    let mut text = format!("\n\\connect {database}\nSET search_path = pg_catalog, pg_temp;\n");
    for point in points {
        let _ = write!(text, "\n-- {}\n", point.what);
        for step in &point.steps {
            let _ = match (&step.statement, &step.is_right) {
                (Statement::CreateDatabase(create), Some(is_right)) => {
                    let create =
                        Script::of("SELECT {} WHERE ({}) IS NOT TRUE", &[&ScriptLiteral(create), is_right]);
                    writeln!(text, "{} \\gexec", create.sql().as_str())
                }
                (statement, _) => writeln!(text, "{};", sql(statement)),
            };
        }
    }
    text
}

/// A list in YAML, one statement an entry.
fn list(key: &str, points: &[Point]) -> String {
    let mut text = format!("{key}:\n");
    for point in points {
        let _ = writeln!(text, "  # {}", point.what);
        for step in &point.steps {
            let _ = writeln!(text, "  - |-\n    {}", sql(&step.statement).replace('\n', "\n    "));
        }
    }
    text
}

fn sql(statement: &Statement) -> String {
    let (Statement::Block(script) | Statement::CreateDatabase(script)) = statement;
    script.sql().as_str().to_owned()
}
