//! `tenantry server-setup`.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use sqlx::postgres::PgConnectOptions;

use super::output::print;
use crate::postgres::{
    self,
    install::{
        printed::{SqlFormat, print_setup},
        setup::{SetupOptions, server_setup as set_up},
    },
    tenant::credentials::{SecretText, without_final_line_break},
};

/// Flags of `tenantry server-setup`.
#[derive(Args)]
#[command(after_help = "\
It makes the changes that only an administrator can make:\n  \
- creates role tenantry_admin (NOLOGIN CREATEDB CREATEROLE) and the operator's login as its member, neither a superuser\n  \
- grants tenantry_admin pg_signal_backend, pg_read_all_stats, pg_use_reserved_connections (from 16 on) and SET of \
temp_file_limit\n  \
- creates the registry's database, without rights for PUBLIC\n  \
- revokes all rights on postgres, template1 and template0 from PUBLIC; grants tenantry_admin CONNECT on postgres\n  \
- in template1, revokes EXECUTE on the large-object writers and CREATE in schema public from PUBLIC\n\n\
It is idempotent: run it again to change the operator's password, for example. What this administrator may not do is \
listed: as reduced, where the operator works without it, or as refused; then the exit code is not 0.\n\n\
Examples:\n  \
TENANTRY_ADMIN_URL=postgresql://postgres:…@db:5432/postgres?sslmode=verify-full \\\n    \
TENANTRY_OPERATOR_PASSWORD=… tenantry server-setup\n  \
TENANTRY_OPERATOR_PASSWORD=… tenantry server-setup --print-sql | psql …")]
pub struct Arguments {
    /// URL with the administrator's login: postgresql://USER:PASSWORD@HOST:PORT/postgres?sslmode=verify-full
    #[arg(long, env = "TENANTRY_ADMIN_URL", hide_env_values = true, value_name = "URL")]
    admin_url: Option<SecretText>,

    /// Print the SQL, with the password as a SCRAM verifier, instead of running it
    #[arg(
        long,
        env = "TENANTRY_PRINT_SQL",
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "psql"
    )]
    print_sql: Option<Format>,

    /// Name of the operator's login
    #[arg(long, env = "TENANTRY_OPERATOR_USER", default_value = "tenantry_operator", value_name = "NAME")]
    operator_user: String,

    /// Password of the operator's login: only from the environment variable, so that no process list shows it
    #[arg(env = "TENANTRY_OPERATOR_PASSWORD", hide_env_values = true, value_name = "PASSWORD", hide = true)]
    operator_password: Option<SecretText>,

    /// Name of the registry's database
    #[arg(long, env = "TENANTRY_SYSTEM_DATABASE", default_value = "tenantry_system", value_name = "NAME")]
    system_database: String,

    /// Do not create the registry on this server: another server has it
    #[arg(long, env = "TENANTRY_NO_SYSTEM_DATABASE")]
    no_system_database: bool,
}

/// What runs the printed SQL.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// By psql: a script that can be run again
    Psql,
    /// By CloudNativePG: postInitSQL and postInitTemplateSQL of a new Cluster
    Cloudnativepg,
}

/// Why the setup failed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No password is set.
    #[error("set TENANTRY_OPERATOR_PASSWORD to the new password of the operator's login")]
    Password,
    /// No URL is set.
    #[error("set TENANTRY_ADMIN_URL to a URL with the administrator's login, or use --print-sql")]
    NoUrl,
    /// The URL is not valid.
    #[error("TENANTRY_ADMIN_URL cannot be used: {0}")]
    Url(sqlx::Error),
    /// The server failed or refused.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// What was done could not be printed.
    #[error("could not print: {0}")]
    Print(#[from] std::io::Error),
    /// The setup is not complete.
    #[error(
        "not complete: have an administrator with sufficient rights run the refused statements, then run this again"
    )]
    Incomplete,
}

/// Sets a server up, and prints what was done.
pub async fn server_setup(arguments: Arguments) -> Result<(), SetupError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let password = arguments.operator_password.ok_or(SetupError::Password)?;
    // As the operator reads it.
    let password = SecretText::new(without_final_line_break(password.expose()));
    let system_database = (!arguments.no_system_database).then_some(arguments.system_database);
    let options = SetupOptions { operator: arguments.operator_user, password, system_database };
    if let Some(format) = arguments.print_sql {
        let format = match format {
            Format::Psql => SqlFormat::Psql,
            Format::Cloudnativepg => SqlFormat::CloudNativePg,
        };
        return Ok(print(&print_setup(&options, format)?)?);
    }
    let url = arguments.admin_url.ok_or(SetupError::NoUrl)?;
    let admin = PgConnectOptions::from_str(url.expose()).map_err(SetupError::Url)?;
    let report = set_up(admin, &options).await?;
    let lines = [("done", &report.done), ("reduced", &report.reduced), ("refused", &report.refused)];
    let line = |(what, lines): (&str, &Vec<String>)| {
        lines.iter().map(|line| format!("{what:<7}  {line}\n")).collect::<String>()
    };
    print(&lines.map(line).concat())?;
    if report.refused.is_empty() { Ok(()) } else { Err(SetupError::Incomplete) }
}
