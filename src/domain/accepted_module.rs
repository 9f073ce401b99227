//! What the registry records of a module's accepted content, so that a change is found after a restart too.

use crate::api::tenant_module::RehearsalStatus;

/// The accepted content of a module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AcceptedModule {
    /// Its name.
    pub name: String,
    /// The schema of its objects.
    pub schema: String,
    /// The version that tenants are brought to.
    pub version: i32,
    /// The digest of the content.
    pub digest: String,
    /// Its files up to that version, by number.
    pub files: Vec<AcceptedFile>,
    /// The last rehearsal; none if there was nothing to rehearse.
    pub rehearsal: Option<RehearsalStatus>,
}

/// A file that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedFile {
    /// Its number.
    pub version: i32,
    /// Its name.
    pub file: String,
    /// Its checksum.
    pub checksum: Vec<u8>,
}
