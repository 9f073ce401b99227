//! The errors of a module: its SQL, its schema, and the extensions that it needs.

/// The position and the cause of a failure in a module's SQL.
#[derive(Debug, thiserror::Error)]
#[error("module {module}, version {version}, {file}{}: {message}", position(*.line, *.column))]
pub struct MigrationError {
    /// The module.
    pub module: String,
    /// The version that failed; those before it are applied.
    pub version: i32,
    /// The file.
    pub file: String,
    /// The line in the file, from 1, if the server reported a position.
    pub line: Option<usize>,
    /// The column, from 1.
    pub column: Option<usize>,
    /// The server's message.
    pub message: String,
    /// The SQLSTATE.
    pub sql_state: Option<String>,
    /// Whether the same file may succeed later (after a lock, a full disk, a lost connection).
    pub transient: bool,
}

fn position(line: Option<usize>, column: Option<usize>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!(" line {line} column {column}"),
        _ => String::new(),
    }
}

/// An extension that a module needs, and that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("module {module} needs extension {extension} in database {database} of server {server}: {detail}")]
pub struct ExtensionError {
    /// The module.
    pub module: String,
    /// The extension.
    pub extension: String,
    /// The database.
    pub database: String,
    /// The server.
    pub server: String,
    /// What is wrong, and what to do.
    pub detail: String,
}

/// A schema that a module cannot use.
#[derive(Debug, thiserror::Error)]
#[error("module {module}: schema {schema} of database {database} {detail}")]
pub struct ModuleSchemaError {
    /// The module.
    pub module: String,
    /// The schema.
    pub schema: String,
    /// The database.
    pub database: String,
    /// What is wrong, and what to do.
    pub detail: String,
}
