//! The rules of the house that a compiler does not hold: who may import whom, what belongs in one place only, what
//! never goes into a commit. Each failure names the file, the line and the rule.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod files;
mod rules;
