//! The controller of `SupportAccess`: a login for a tenant's data that only reads, from its request to its end.

pub mod controller;
pub mod end;
mod grant;
mod policy;
pub mod reconcile;
mod secret;
mod status;

pub use self::secret::name_of as secret_name;
