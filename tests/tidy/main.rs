//! The rules of this repository that a machine can check. Each module has one kind of rule: what it is, why, and samples
//! that it finds. A failure shows file, line and rule. `docs/architecture.md` explains the rules.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod code;
mod cycles;
mod dependencies;
mod documents;
mod imports;
mod lifecycle;
mod machine_paths;
mod module_tables;
mod names;
mod purity;
mod reasons;
mod steps;
mod structure;
mod test_code;
mod tree;
mod wording;
