//! What the Job of a run and its pod show. Pure.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerState, Pod},
};

use super::job::CONTAINER;
use crate::domain::migration_run::{JobState, log_tail};

/// A longer end of a log was cut: the kubelet writes at most 2048 bytes of it into the pod's status.
const WHOLE_LOG: usize = 2000;

/// The state of a Job, from it and the pods with its run's label. The kubelet writes the end of a failed container's log into
/// the pod's status; the secrets in it are removed.
pub fn job_state(job: Option<&Job>, pods: &[Pod], secrets: &[&str]) -> JobState {
    let Some(job) = job else { return JobState::Absent };
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is_true = |kind: &str| {
        conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
    };
    if is_true("Complete").is_some() {
        return JobState::Succeeded;
    }
    let Some(failed) = is_true("Failed") else { return JobState::Unfinished(waits_for(pods)) };
    let ended = pods.iter().filter_map(|pod| container_state(pod)?.terminated.as_ref());
    let Some(ended) = ended.max_by_key(|ended| ended.finished_at.clone()) else {
        let what = waits_for(pods).or_else(|| failed.message.clone()).unwrap_or_default();
        let reason = failed.reason.as_deref().unwrap_or("no reason");
        return JobState::Failed(None, format!("{reason}: {what}"));
    };
    let mut message = format!("exit code {}", ended.exit_code);
    // A command that was ended at its deadline, or used too much memory.
    for why in [&ended.reason, &failed.reason].into_iter().flatten() {
        if !matches!(why.as_str(), "Error" | "BackoffLimitExceeded") {
            message.push_str(&format!(" ({why})"));
        }
    }
    let log = ended.message.as_deref().unwrap_or_default();
    let log = log_tail(log, log.len() > WHOLE_LOG, secrets);
    if !log.is_empty() {
        message.push_str(&format!(": {log}"));
    }
    JobState::Failed(Some(ended.exit_code), message)
}

fn container_state(pod: &Pod) -> Option<&ContainerState> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find(|container| container.name == CONTAINER)?.state.as_ref()
}

/// Why the command does not run yet, if that is not just a matter of seconds.
fn waits_for(pods: &[Pod]) -> Option<String> {
    pods.iter().find_map(|pod| {
        let text = |reason: &str, message: Option<&String>| match message {
            Some(message) => format!("{reason}: {message}"),
            None => reason.to_owned(),
        };
        if let Some(waiting) = container_state(pod).and_then(|state| state.waiting.as_ref()) {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            let is_ordinary = matches!(reason, "" | "ContainerCreating" | "PodInitializing");
            return (!is_ordinary).then(|| text(reason, waiting.message.as_ref()));
        }
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let unscheduled = conditions
            .iter()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
        Some(text(unscheduled.reason.as_deref()?, unscheduled.message.as_ref()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn state(job: Value, pods: Value) -> JobState {
        let job: Job = serde_json::from_value(json!({"metadata": {}, "status": job})).unwrap();
        let pods: Vec<Value> = serde_json::from_value(pods).unwrap();
        let pods: Vec<Pod> = pods
            .into_iter()
            .map(|status| serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap())
            .collect();
        job_state(Some(&job), &pods, &["pw"])
    }

    fn condition(kind: &str, reason: &str) -> Value {
        json!({"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "a message"}]})
    }

    fn container(state: Value) -> Value {
        json!([{"containerStatuses": [
            {"name": "sidecar", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state},
        ]}])
    }

    #[test]
    fn job_without_an_end_is_unfinished_and_says_what_it_waits_for() {
        assert_eq!(job_state(None, &[], &[]), JobState::Absent);
        let waiting =
            |reason: &str| container(json!({"waiting": {"reason": reason, "message": "no such image"}}));
        let unscheduled = json!([{"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}]);
        for (job, pods, expected) in [
            (json!({}), json!([]), None),
            (json!({"active": 1}), container(json!({"running": {}})), None),
            (json!({"active": 1}), waiting("ContainerCreating"), None),
            (json!({"active": 1}), waiting("ErrImagePull"), Some("ErrImagePull: no such image")),
            (json!({"active": 1}), unscheduled, Some("Unschedulable: 0/3 nodes")),
            // Its pod is still ending.
            (condition("FailureTarget", "BackoffLimitExceeded"), container(json!({"running": {}})), None),
            (condition("SuccessCriteriaMet", "CompletionsReached"), container(json!({"running": {}})), None),
        ] {
            assert_eq!(state(job, pods), JobState::Unfinished(expected.map(str::to_owned)));
        }
    }

    #[test]
    fn end_has_the_exit_code_and_the_log() {
        let ended = |code: i32, reason: &str, log: &str| {
            container(json!({"terminated": {"exitCode": code, "reason": reason, "message": log}}))
        };
        assert_eq!(
            state(condition("Complete", "CompletionsReached"), ended(0, "Completed", "")),
            JobState::Succeeded
        );
        for (why, pods, code, message) in [
            (
                "BackoffLimitExceeded",
                ended(3, "Error", "no such table\n"),
                Some(3),
                "exit code 3: no such table",
            ),
            ("BackoffLimitExceeded", ended(137, "OOMKilled", ""), Some(137), "exit code 137 (OOMKilled)"),
            ("DeadlineExceeded", ended(143, "Error", ""), Some(143), "exit code 143 (DeadlineExceeded)"),
            ("DeadlineExceeded", json!([]), None, "DeadlineExceeded: a message"),
            (
                "DeadlineExceeded",
                container(json!({"waiting": {"reason": "ImagePullBackOff"}})),
                None,
                "DeadlineExceeded: ImagePullBackOff",
            ),
        ] {
            assert_eq!(state(condition("Failed", why), pods), JobState::Failed(code, message.to_owned()));
        }
    }
}
