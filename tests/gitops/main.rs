//! What deployment tools make of the objects of Tenantry, with the real tools: kstatus (Flux, Helm 4), the health scripts
//! of Argo CD, Flux itself, and Helm. All of it is slow: `make test-all` runs it.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod flux;
mod health;
mod helm;
mod states;

use std::path::{Path, PathBuf};

/// A file of this checkout.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap()
}
