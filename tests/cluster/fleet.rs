//! Many tenants at once, and none of them doing anything.
