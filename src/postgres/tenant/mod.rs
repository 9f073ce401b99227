//! Operations on the database and the login of one tenant, and on the usage of many.

mod access;
pub mod credentials;
pub mod databases;
pub mod give_back;
mod grants;
mod large_objects;
mod leftovers;
mod limits;
mod logins;
pub mod migrate;
pub mod migration_login;
pub mod migration_login_end;
pub mod module_purge;
mod ownership;
mod properties;
mod recorded_version;
mod retired_login;
mod rights;
pub mod seed;
mod settings;
pub mod storage;
mod structure;
pub mod support_login;
mod tables;
pub mod takeover;
pub mod usage;
pub mod vacuum;
