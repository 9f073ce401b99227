//! The rules of this repository that a machine can hold. Each module has one kind of rule: what it is, why, and a proof
//! that it finds what it is for. A failure says file, line and rule. `docs/architecture.md` says why the rules are there.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod code;
mod dependencies;
mod documents;
mod imports;
mod lifecycle;
mod names;
mod places;
mod purity;
mod steps;
mod tests;
mod tree;
