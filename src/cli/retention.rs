//! The flags of `tenantry run` that say what the registry keeps.

use clap::Args;

use crate::domain::retention::Retention;

/// What the registry keeps. 0: for ever.
#[derive(Args)]
pub struct RetentionArguments {
    /// Days for which the registry keeps a workflow that succeeded at its first attempt; 0: for ever
    #[arg(long, env = "TENANTRY_KEEP_WORKFLOW_DAYS", default_value_t = 30, value_name = "DAYS",
          value_parser = clap::value_parser!(i32).range(0..=36500))]
    keep_workflow_days: i32,

    /// Days for which it keeps a workflow of which an attempt failed; 0: for ever
    #[arg(long, env = "TENANTRY_KEEP_FAILED_WORKFLOW_DAYS", default_value_t = 180, value_name = "DAYS",
          value_parser = clap::value_parser!(i32).range(0..=36500))]
    keep_failed_workflow_days: i32,

    /// Number of workflows of each of these kinds that it keeps of a tenant; 0: all
    #[arg(long, env = "TENANTRY_KEEP_WORKFLOWS", default_value_t = 200, value_name = "N",
          value_parser = clap::value_parser!(i32).range(0..))]
    keep_workflows: i32,

    /// Days after which activity is moved to the table activity_archive; 0: never
    #[arg(long, env = "TENANTRY_KEEP_ACTIVITY_DAYS", default_value_t = 400, value_name = "DAYS",
          value_parser = clap::value_parser!(i32).range(0..=36500))]
    keep_activity_days: i32,

    /// Number of activity rows of a tenant that are not moved there; 0: all
    #[arg(long, env = "TENANTRY_KEEP_ACTIVITY", default_value_t = 2000, value_name = "N",
          value_parser = clap::value_parser!(i32).range(0..))]
    keep_activity: i32,

    /// Days of which the registry keeps the usage; 0: all
    #[arg(long, env = "TENANTRY_KEEP_USAGE_DAYS", default_value_t = 800, value_name = "DAYS",
          value_parser = clap::value_parser!(i32).range(0..=36500))]
    keep_usage_days: i32,
}

impl RetentionArguments {
    /// What they come to.
    pub fn retention(&self) -> Retention {
        let limit = |given: i32| (given > 0).then_some(given);
        Retention {
            workflow_days: limit(self.keep_workflow_days),
            failed_workflow_days: limit(self.keep_failed_workflow_days),
            workflows_per_tenant: limit(self.keep_workflows),
            activity_days: limit(self.keep_activity_days),
            activity_per_tenant: limit(self.keep_activity),
            usage_days: limit(self.keep_usage_days),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        retention: RetentionArguments,
    }

    #[test]
    fn zero_keeps_for_ever() {
        let parse = |arguments: &[&str]| {
            Command::parse_from([&["tenantry"], arguments].concat()).retention.retention()
        };
        assert_eq!(parse(&[]), Retention::default());
        let for_ever = Retention { activity_days: None, ..Retention::default() };
        assert_eq!(parse(&["--keep-activity-days=0"]), for_ever);
    }
}
