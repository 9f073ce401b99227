//! `TenantAccount`: the customer's own view of a tenant, in another namespace. It has no controller of its own: its changes
//! request the reconcile of its Tenant, which reads it ([`settle`]), counts it ([`in_force`]) and writes its status ([`show`]).

pub mod in_force;
pub mod object;
pub mod settle;
pub mod show;
