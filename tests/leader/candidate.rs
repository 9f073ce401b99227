//! Candidates: in this runtime, or in one of their own that can be frozen and killed.

use std::{sync::mpsc, thread::JoinHandle, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config};
use tenantry::leader::{Election, Leadership, Timing};
use tenantry_test_support::{CONTROL_PLANE, Wait};

pub const NAMESPACE: &str = "default";

/// The proportions of the default in two fifths of its time, for what waits for the end of a Lease. An API server of a busy
/// machine may take a second or two.
pub const QUICK: Timing = Timing {
    lease: Duration::from_secs(6),
    renew_deadline: Duration::from_secs(4),
    retry: Duration::from_millis(800),
};

/// For what waits for no end of a Lease: none is lost on a busy machine.
pub const PATIENT: Timing = Timing {
    lease: Duration::from_secs(60),
    renew_deadline: Duration::from_secs(50),
    retry: Duration::from_secs(1),
};

pub fn election(lease: &str, identity: &str, timing: Timing) -> Election {
    Election {
        namespace: NAMESPACE.to_owned(),
        name: lease.to_owned(),
        identity: identity.to_owned(),
        pod: None,
        timing,
    }
}

/// Starts a candidate for a Lease on the shared control plane, in this runtime.
pub async fn stand(lease: &str, identity: &str, timing: Timing) -> Leadership {
    election(lease, identity, timing).start(CONTROL_PLANE.client().await.unwrap())
}

pub async fn leases() -> Api<Lease> {
    Api::namespaced(CONTROL_PLANE.client().await.unwrap(), NAMESPACE)
}

pub async fn holder(lease: &str) -> String {
    leases().await.get(lease).await.unwrap().spec.unwrap().holder_identity.unwrap_or_default()
}

/// Waits until a candidate leads.
pub async fn leads(candidate: &Leadership) {
    Wait::until("the candidate leads").within(Duration::from_secs(60)).future(candidate.wait()).await;
}

/// A candidate in a runtime of its own, which a Lease cannot distinguish from a process of its own.
pub struct Process {
    pub leadership: Leadership,
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
    thread: JoinHandle<()>,
}

enum Order {
    /// Does nothing until the other end is dropped.
    Freeze(mpsc::Receiver<()>),
    /// Ends without a release.
    Die,
}

impl Process {
    pub async fn start(election: Election) -> Self {
        Self::start_with(CONTROL_PLANE.config().await.unwrap(), election)
    }

    pub fn start_with(config: Config, election: Election) -> Self {
        let (orders, mut received) = tokio::sync::mpsc::unbounded_channel();
        let (sender, leadership) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let leadership = election.start(Client::try_from(config).unwrap());
                sender.send(leadership.clone()).unwrap();
                while let Some(Order::Freeze(thawed)) = received.recv().await {
                    // Blocks the only thread that the runtime has: no timer fires, no answer is read.
                    let _ = thawed.recv();
                }
            });
            runtime.shutdown_background();
        });
        Self { leadership: leadership.recv().unwrap(), orders, thread }
    }

    /// As SIGSTOP would; dropping what is returned thaws it.
    pub fn freeze(&self) -> mpsc::Sender<()> {
        let (thaw, thawed) = mpsc::channel();
        assert!(self.orders.send(Order::Freeze(thawed)).is_ok(), "it has ended");
        thaw
    }

    /// As SIGKILL would.
    pub fn kill(self) {
        assert!(self.orders.send(Order::Die).is_ok(), "it has ended");
        self.thread.join().unwrap();
    }
}
