//! The loop that takes, renews and releases the lease.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::PostParams};
use tokio::sync::watch;

use super::{
    CandidateState, Election, Shared,
    record::{self, Observed},
};

pub(super) struct Candidate {
    api: Api<Lease>,
    election: Election,
    shared: Arc<Shared>,
    state: watch::Sender<CandidateState>,
    observed: Option<Observed>,
    /// The last failure that was logged: the same failure is logged once.
    failure: Option<String>,
}

/// The result of one try.
enum Tried {
    /// This process holds the lease, renewed by a request that was sent at this instant.
    Ours(Instant),
    /// Another process holds it for at least this long.
    Theirs(Duration),
    /// The API server did not answer, or another candidate was faster.
    Unknown,
}

impl Candidate {
    pub(super) fn new(
        api: Api<Lease>,
        election: Election,
        shared: Arc<Shared>,
        state: watch::Sender<CandidateState>,
    ) -> Self {
        Self { api, election, shared, state, observed: None, failure: None }
    }

    pub(super) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let why = tokio::select! {
            why = self.wait_and_keep() => why,
            () = stop.cancelled() => {
                self.release().await;
                "released".to_owned()
            }
        };
        self.shared.tenure().renewed = None;
        self.state.send_replace(CandidateState::Over(why));
    }

    /// Waits for the lease, takes it and keeps it. Returns why it was lost.
    async fn wait_and_keep(&mut self) -> String {
        let timing = self.election.timing;
        loop {
            match self.attempt(timing.renew_deadline / 2).await {
                Tried::Ours(sent) => {
                    self.shared.tenure().renewed = Some(sent);
                    self.state.send_replace(CandidateState::Leading);
                    tracing::info!(lease = %self.election.name, identity = %self.election.identity, "leading");
                    return self.keep(sent).await;
                }
                // Tries again when it expires, if that is sooner than the next try.
                Tried::Theirs(remaining) => tokio::time::sleep(self.pause().min(remaining)).await,
                Tried::Unknown => tokio::time::sleep(self.pause()).await,
            }
        }
    }

    /// Renews until that fails for too long.
    async fn keep(&mut self, mut renewed: Instant) -> String {
        let timing = self.election.timing;
        loop {
            tokio::time::sleep(timing.retry).await;
            // A process that was suspended beyond the deadline does not try: another process may hold the lease.
            let Some(left) = timing.renew_deadline.checked_sub(renewed.elapsed()) else {
                return format!("not renewed for {} s", timing.renew_deadline.as_secs());
            };
            // Half of it, so that a request without an answer leaves time for another.
            match self.attempt(left.min(timing.renew_deadline / 2)).await {
                Tried::Ours(sent) => {
                    renewed = sent;
                    self.shared.tenure().renewed = Some(sent);
                }
                Tried::Theirs(_) => {
                    let holder = self.observed.as_ref().and_then(Observed::holder).unwrap_or_default();
                    return format!("taken over by {holder}");
                }
                Tried::Unknown => {}
            }
        }
    }

    /// The pause between two tries, with a little jitter, so that candidates do not try at the same time.
    fn pause(&self) -> Duration {
        self.election.timing.retry.mul_f64(1.0 + rand::random_range(0.0..0.1))
    }

    /// One try to take or renew the lease, within `limit`.
    async fn attempt(&mut self, limit: Duration) -> Tried {
        let outcome = tokio::time::timeout(limit, self.take_or_renew()).await;
        let failure = match outcome {
            Ok(Ok(tried)) => {
                self.failure = None;
                return tried;
            }
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
                // Another candidate was faster. The next try reads its record.
                return Tried::Unknown;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {limit:?}"),
        };
        if self.failure.as_ref() != Some(&failure) {
            tracing::warn!(lease = %self.election.name, error = %failure, "could not read or write the lease");
            self.failure = Some(failure);
        }
        Tried::Unknown
    }

    async fn take_or_renew(&mut self) -> kube::Result<Tried> {
        // A holder renews in one request. It reads the lease only if that fails.
        if self.leads()
            && let Some(observed) = self.observed.clone()
        {
            match self.replace(observed).await {
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
                outcome => return outcome,
            }
        }
        let read = self.api.get_opt(&self.election.name).await?;
        let now = Instant::now();
        let Some(lease) = read else {
            let lease = record::first(&self.election, Timestamp::now());
            let created = self.api.create(&PostParams::default(), &lease).await?;
            self.observed = Some(Observed::note(None, created, Instant::now()));
            return Ok(Tried::Ours(now));
        };
        let observed = Observed::note(self.observed.take(), lease, now);
        self.observed = Some(observed.clone());
        if observed.holder() != Some(&self.election.identity) {
            let Election { pod, timing, .. } = &self.election;
            let remaining = observed.remaining(now, pod.as_deref(), timing);
            if !remaining.is_zero() {
                return Ok(Tried::Theirs(remaining));
            }
            // Not renewed in time: a holder that lost its lease does not take it again.
            if self.leads() {
                return Ok(Tried::Theirs(Duration::ZERO));
            }
            self.shared.tenure().predecessor = observed.holder().map(str::to_owned);
        }
        self.replace(observed).await
    }

    /// Writes this process into the record, if it is still the one that was read.
    async fn replace(&mut self, observed: Observed) -> kube::Result<Tried> {
        let lease = record::held_by(observed.lease.clone(), &self.election, Timestamp::now());
        let sent = Instant::now();
        let written = self.api.replace(&self.election.name, &PostParams::default(), &lease).await?;
        self.observed = Some(Observed::note(Some(observed), written, Instant::now()));
        Ok(Tried::Ours(sent))
    }

    fn leads(&self) -> bool {
        *self.state.borrow() == CandidateState::Leading
    }

    /// Releases the lease if this process holds it.
    async fn release(&mut self) {
        if !self.leads() {
            return;
        }
        // From now on this process does not lead, even if the request fails.
        self.state.send_replace(CandidateState::Over("released".to_owned()));
        let outcome = tokio::time::timeout(self.election.timing.retry * 2, async {
            // Read again: the renewal that was cut off may have been written.
            let lease = self.api.get(&self.election.name).await?;
            let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
            if holder == Some(&self.election.identity) {
                let lease = record::released(lease, Timestamp::now());
                self.api.replace(&self.election.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        });
        match outcome.await {
            Ok(Ok(())) => tracing::info!(lease = %self.election.name, "lease released"),
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.election.name, %error, "could not release the lease")
            }
            Err(_) => {
                tracing::warn!(lease = %self.election.name, "could not release the lease in time")
            }
        }
    }
}
