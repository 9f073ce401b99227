//! `tenantry crds`.

use std::{fs, io, path::PathBuf};

use clap::Args;

use super::output::print;
use crate::api;

/// Flags of `tenantry crds`.
#[derive(Args)]
#[command(after_help = "Example:\n  tenantry crds | kubectl apply --server-side -f -")]
pub struct Arguments {
    /// Write one file per kind into this directory instead of printing them
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

/// Prints or writes the CustomResourceDefinitions.
pub fn crds(arguments: Arguments) -> io::Result<()> {
    let Some(directory) = arguments.write else {
        return print(&api::crds_yaml());
    };
    fs::create_dir_all(&directory)?;
    for (name, yaml) in api::crd_files() {
        fs::write(directory.join(name), yaml)?;
    }
    Ok(())
}
