//! Pages whose commands are run as they are printed, in that order, by a shell with the programs that the page names.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod coverage;
mod daily;
mod drivers;
mod enforcing_state;
mod external_secrets;
mod how_tos;
mod install;
mod real_clusters;
mod shell;
mod your_application;
