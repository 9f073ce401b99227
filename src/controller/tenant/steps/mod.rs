//! The steps, one file each, with the step's rules at its head. Every step can be repeated, and can be cancelled at any
//! await: it reads the current state before it changes anything.

mod activate;
mod adopt_row;
mod apply_migrations;
mod apply_plan;
mod change_slug;
mod claim_finalizer;
mod close;
mod create_database;
mod create_roles;
mod cut_access;
mod drop_database;
mod drop_roles;
mod enforce_access;
mod give_back;
mod publish_credentials;
mod publish_database;
mod publish_reader;
mod purge_modules;
mod record_rollback;
mod record_state;
mod register;
mod reinstate;
mod release_finalizer;
mod remove_reader;
mod remove_secrets;
mod restore_activation;
mod retire_login;
mod rotate_login;
mod seed;
mod take_over;
mod tombstone;
mod verify;

use super::{failure::StepError, step_context::StepContext};
use crate::domain::workflow::step::Step;

/// Runs one step.
pub async fn run(name: Step, step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    match name {
        Step::ClaimFinalizer => claim_finalizer::run(step).await,
        Step::Register => register::run(step).await,
        Step::ChangeSlug => change_slug::run(step).await,
        Step::CreateRoles => create_roles::run(step).await,
        Step::CreateDatabase => create_database::run(step).await,
        Step::TakeOver => take_over::run(step).await,
        Step::ApplyMigrations => apply_migrations::run(step).await,
        Step::ApplyPlan => apply_plan::run(step).await,
        Step::Seed => seed::run(step).await,
        Step::PublishDatabase => publish_database::run(step).await,
        Step::EnforceAccess => enforce_access::run(step).await,
        Step::PublishCredentials => publish_credentials::run(step).await,
        Step::Verify => verify::run(step).await,
        Step::Activate => activate::run(step).await,
        Step::RecordState => record_state::run(step).await,
        Step::PurgeModules => purge_modules::run(step).await,
        Step::RotateLogin => rotate_login::run(step).await,
        Step::RetireLogin => retire_login::run(step).await,
        Step::PublishReader => publish_reader::run(step).await,
        Step::RemoveReader => remove_reader::run(step).await,
        Step::Reinstate => reinstate::run(step).await,
        Step::RestoreActivation => restore_activation::run(step).await,
        Step::AdoptRow => adopt_row::run(step).await,
        Step::RecordRollback => record_rollback::run(step).await,
        Step::CutAccess => cut_access::run(step).await,
        Step::Tombstone => tombstone::run(step).await,
        Step::GiveBack => give_back::run(step).await,
        Step::DropDatabase => drop_database::run(step).await,
        Step::DropRoles => drop_roles::run(step).await,
        Step::RemoveSecrets => remove_secrets::run(step).await,
        Step::Close => close::run(step).await,
        Step::ReleaseFinalizer => release_finalizer::run(step).await,
    }
}
