//! Taking over a database that exists already: what was found in it, what would change, and what stands against it. Pure:
//! the catalogs are read elsewhere.
//!
//! Nothing is changed before a person confirms the report by its digest. From then until the tenant is active, an undo gives
//! the database back; it is never dropped.

mod blockers;
mod changes;
mod former;
mod found;
mod intent;
mod kept;
mod report;
#[cfg(test)]
mod tests;

pub use self::{
    former::{Former, FormerLogin, FormerObject},
    found::{
        DatabaseContent, FoundDatabase, FoundExtension, FoundLogin, FoundObject, FoundRights, FoundRole,
        Grantee, Obstruction, Reach, alter_keyword, new_owner,
    },
    intent::{BaselineError, Intent, KeptLogin, allows, baseline_versions},
    report::{Report, TakeoverRefusal},
};
