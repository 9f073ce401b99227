//! One run of an application's own migration tool against one database: from what was observed to the next action. The order
//! is what keeps a run safe to interrupt: the login before the Secret before the Job; at the end the Job's pod first, then the
//! login, then the result, and the Secret last.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::reason::Reason;

/// The longest part of a tool's log that a message shows.
const MAX_LOG: usize = 2000;
/// What stands in a log in the place of a secret.
const SCRUBBED: &str = "[removed]";

/// The Job of a run, as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// There is none.
    Absent,
    /// It has not ended. What its pod waits for, if it has not started: an image that cannot be pulled, for example.
    Unfinished(Option<String>),
    /// Its command ended with the exit code 0.
    Succeeded,
    /// It failed: the exit code, if the command ran, and what Kubernetes says.
    Failed(Option<i32>, String),
}

/// The migration login of a run, as the server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginState {
    /// There is none, or one of another run.
    Absent,
    /// It can log in.
    Open,
    /// It cannot log in any more; its end was interrupted, and it may have sessions and rights.
    Ending,
}

/// What was observed of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// The time.
    pub now: Timestamp,
    /// When the run has to be over; none until its Job was created.
    pub deadline: Option<Timestamp>,
    /// Its migration login.
    pub login: LoginState,
    /// Whether the Secret with the login's password exists.
    pub has_secret: bool,
    /// Its Job.
    pub job: JobState,
    /// How it ended, if that is known already.
    pub outcome: Option<RunOutcome>,
    /// It is no longer wanted: the tenant is being deprovisioned, or the module has another version.
    pub is_cancelled: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunOutcome {
    /// The tool ended with the exit code 0: the database has the version.
    Succeeded,
    /// The tool failed.
    Failed {
        /// Its exit code, if it ran.
        exit_code: Option<i32>,
        /// Why.
        message: String,
    },
    /// It is no longer wanted.
    Cancelled,
}

impl RunOutcome {
    /// The reason, for conditions; none after a success or a cancellation.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Succeeded | Self::Cancelled => None,
            Self::Failed { .. } => Some(Reason::MigrationFailed),
        }
    }
}

/// The next action of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAction {
    /// Create the login with a new password, and the Secret with it.
    OpenLogin,
    /// Create the Job.
    CreateJob,
    /// Look again when the Job changes, and at the deadline.
    Wait {
        /// The deadline.
        until: Option<Timestamp>,
        /// What the pod waits for, for the status.
        waiting_for: Option<String>,
    },
    /// Record how it ended, with the end of the tool's log, before anything of it is removed.
    Record(RunOutcome),
    /// Delete the Job with its pod, which may still run.
    DeleteJob,
    /// Take the login away.
    CloseLogin,
    /// Delete the Secret.
    DeleteSecret,
    /// Nothing of the run is left to do.
    Done(RunOutcome),
}

/// The next action.
pub fn next_action(facts: &RunFacts) -> RunAction {
    if let Some(outcome) = &facts.outcome {
        return wind_up(facts, outcome);
    }
    if facts.is_cancelled {
        return RunAction::Record(RunOutcome::Cancelled);
    }
    let is_over = facts.deadline.is_some_and(|deadline| deadline <= facts.now);
    match &facts.job {
        JobState::Succeeded => RunAction::Record(RunOutcome::Succeeded),
        JobState::Failed(exit_code, message) => {
            RunAction::Record(RunOutcome::Failed { exit_code: *exit_code, message: message.clone() })
        }
        JobState::Unfinished(waiting_for) if is_over => {
            let waiting = waiting_for.as_deref().map(|what| format!(": {what}")).unwrap_or_default();
            let message = format!("it was not done at its deadline{waiting}");
            RunAction::Record(RunOutcome::Failed { exit_code: None, message })
        }
        // Its password may be invalid by now, or its sessions ended: what the tool does from here on fails.
        JobState::Unfinished(_) if facts.login != LoginState::Open => {
            let message = "its migration login was taken away while it ran".to_owned();
            RunAction::Record(RunOutcome::Failed { exit_code: None, message })
        }
        JobState::Unfinished(waiting_for) => {
            RunAction::Wait { until: facts.deadline, waiting_for: waiting_for.clone() }
        }
        // It had one, which was deleted, and what it has done is not known.
        JobState::Absent if facts.deadline.is_some() => {
            let message = "its Job was deleted while it ran".to_owned();
            RunAction::Record(RunOutcome::Failed { exit_code: None, message })
        }
        // Without the Secret, the password is lost.
        JobState::Absent if facts.login != LoginState::Open || !facts.has_secret => RunAction::OpenLogin,
        JobState::Absent => RunAction::CreateJob,
    }
}

/// A Job that succeeded stays for its log until Kubernetes deletes it; one that may still run is deleted first.
fn wind_up(facts: &RunFacts, outcome: &RunOutcome) -> RunAction {
    match facts.job {
        JobState::Unfinished(_) => RunAction::DeleteJob,
        _ if facts.login != LoginState::Absent => RunAction::CloseLogin,
        _ if facts.has_secret => RunAction::DeleteSecret,
        _ => RunAction::Done(outcome.clone()),
    }
}

/// The end of a tool's log, without its secrets: tools print the URL that they connect to. A first line may have been cut
/// within a secret, and is left out where more than the end was written.
pub fn log_tail(log: &str, is_cut: bool, secrets: &[&str]) -> String {
    let log = match log.split_once('\n') {
        Some((_, rest)) if is_cut => rest,
        None if is_cut => "",
        _ => log,
    };
    let scrubbed = secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .fold(log.to_owned(), |log, secret| log.replace(secret, SCRUBBED));
    let printable: String =
        scrubbed.trim_end().chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect();
    let start = printable.ceil_char_boundary(printable.len().saturating_sub(MAX_LOG));
    printable[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn facts(login: LoginState, has_secret: bool, job: JobState) -> RunFacts {
        RunFacts {
            now: time(100),
            deadline: None,
            login,
            has_secret,
            job,
            outcome: None,
            is_cancelled: false,
        }
    }

    fn running() -> RunFacts {
        let facts = facts(LoginState::Open, true, JobState::Unfinished(None));
        RunFacts { deadline: Some(time(200)), ..facts }
    }

    fn failure(action: RunAction) -> String {
        match action {
            RunAction::Record(RunOutcome::Failed { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn login_and_secret_come_before_the_job() {
        for (login, has_secret, action) in [
            (LoginState::Absent, false, RunAction::OpenLogin),
            // Its password is in no Secret, or is not that of the Secret.
            (LoginState::Open, false, RunAction::OpenLogin),
            (LoginState::Absent, true, RunAction::OpenLogin),
            (LoginState::Ending, true, RunAction::OpenLogin),
            (LoginState::Open, true, RunAction::CreateJob),
        ] {
            assert_eq!(next_action(&facts(login, has_secret, JobState::Absent)), action);
        }
        let wait = RunAction::Wait { until: Some(time(200)), waiting_for: None };
        assert_eq!(next_action(&running()), wait);
    }

    #[test]
    fn failures_differ() {
        let deleted = RunFacts { job: JobState::Absent, ..running() };
        assert!(failure(next_action(&deleted)).contains("was deleted"));
        let taken = RunFacts { login: LoginState::Absent, ..running() };
        assert!(failure(next_action(&taken)).contains("taken away"));
        let waiting = JobState::Unfinished(Some("ImagePullBackOff".into()));
        let late = RunFacts { now: time(200), job: waiting, ..running() };
        assert_eq!(failure(next_action(&late)), "it was not done at its deadline: ImagePullBackOff");
        let failed = RunFacts { job: JobState::Failed(Some(3), "exit code 3".into()), ..running() };
        let outcome = RunOutcome::Failed { exit_code: Some(3), message: "exit code 3".into() };
        assert_eq!(outcome.reason(), Some(Reason::MigrationFailed));
        assert_eq!(next_action(&failed), RunAction::Record(outcome));
        // One that succeeded did, however late it is seen, and whatever has become of its login.
        let done =
            RunFacts { now: time(900), login: LoginState::Absent, job: JobState::Succeeded, ..running() };
        assert_eq!(next_action(&done), RunAction::Record(RunOutcome::Succeeded));
    }

    #[test]
    fn end_has_its_order() {
        let outcome = RunOutcome::Cancelled;
        let mut facts = RunFacts { is_cancelled: true, ..running() };
        assert_eq!(next_action(&facts), RunAction::Record(outcome.clone()));
        facts.outcome = Some(outcome.clone());
        assert_eq!(next_action(&facts), RunAction::DeleteJob);
        facts.job = JobState::Absent;
        assert_eq!(next_action(&facts), RunAction::CloseLogin);
        facts.login = LoginState::Ending;
        assert_eq!(next_action(&facts), RunAction::CloseLogin);
        facts.login = LoginState::Absent;
        assert_eq!(next_action(&facts), RunAction::DeleteSecret);
        facts.has_secret = false;
        assert_eq!(next_action(&facts), RunAction::Done(outcome));
    }

    /// A world in which every action has its effect, and a tool that ends in some way at some point.
    fn play(mut facts: RunFacts, end: &JobState, lasts: u32) -> (RunOutcome, RunFacts) {
        for step in 0..40 {
            match next_action(&facts) {
                RunAction::OpenLogin => (facts.login, facts.has_secret) = (LoginState::Open, true),
                RunAction::CreateJob => {
                    assert!(facts.login == LoginState::Open && facts.has_secret);
                    (facts.job, facts.deadline) = (JobState::Unfinished(None), Some(time(200)));
                }
                RunAction::Wait { .. } if step >= lasts => facts.job = end.clone(),
                RunAction::Wait { .. } => facts.now = time(facts.now.as_second() + 10),
                RunAction::Record(outcome) => facts.outcome = Some(outcome),
                RunAction::DeleteJob => facts.job = JobState::Absent,
                RunAction::CloseLogin => facts.login = LoginState::Absent,
                RunAction::DeleteSecret => facts.has_secret = false,
                RunAction::Done(outcome) => return (outcome, facts),
            }
        }
        panic!("it never ended: {facts:?}");
    }

    proptest! {
        #[test]
        fn every_run_ends_without_a_login_and_a_job_that_runs(
            login in 0..3usize, has_secret in any::<bool>(), state in 0..5u8, end in 0..3u8, lasts in 0..20u32,
            cancelled in any::<bool>(),
        ) {
            let login = [LoginState::Absent, LoginState::Open, LoginState::Ending][login];
            let job = |state: u8| match state {
                0 => JobState::Succeeded,
                1 => JobState::Failed(Some(1), "exit code 1".into()),
                2 => JobState::Absent,
                _ => JobState::Unfinished(None),
            };
            let start = RunFacts {
                deadline: (state != 2).then(|| time(200)),
                is_cancelled: cancelled,
                ..facts(login, has_secret, job(state))
            };
            let (outcome, left) = play(start, &job(end), lasts);
            prop_assert!(left.login == LoginState::Absent && !left.has_secret);
            prop_assert!(!matches!(left.job, JobState::Unfinished(_)));
            // Nothing counts as applied but a tool that said so.
            let succeeded = outcome == RunOutcome::Succeeded;
            prop_assert!(!succeeded || left.job == JobState::Succeeded);
        }

        #[test]
        fn no_secret_is_left_in_a_log(before in ".{0,40}", after in ".{0,40}", cut in 0..60usize) {
            let secret = "Xq7Zp0LmNw4Rt8Vb2Yc6Hd1Jf5Kg9Sa3";
            let log = format!("{before}{secret}\n{secret}{after}{secret}");
            let start = log.ceil_char_boundary(cut.min(log.len()));
            let tail = log_tail(&log[start..], start > 0, &[secret]);
            for window in secret.as_bytes().windows(12) {
                let part = std::str::from_utf8(window).unwrap();
                prop_assert!(!tail.contains(part), "{}", tail);
            }
        }
    }

    #[test]
    fn log_is_cut_at_its_beginning() {
        let log = format!("{}\u{1b}[31mthe end\n", "ü".repeat(3000));
        let tail = log_tail(&log, false, &[]);
        assert!(tail.len() <= MAX_LOG && tail.ends_with("[31mthe end"), "{tail}");
        assert_eq!(
            log_tail("connect to postgresql://a:pw@db/x", false, &["pw"]),
            "connect to postgresql://a:[removed]@db/x"
        );
        assert_eq!(log_tail("half a line", true, &[]), "");
    }
}
