//! Candidates: in this runtime, or in one of their own that can be frozen and killed.

use std::{
    sync::{LazyLock, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config};
use tenantry::leader::{Election, Leadership, Timing};
use tenantry_dev::{ControlPlane, ControlPlaneOptions, environment::on_a_thread};

pub const NAMESPACE: &str = "default";

pub static PLANE: LazyLock<ControlPlane> = LazyLock::new(|| {
    on_a_thread(|| ControlPlane::start(ControlPlaneOptions::default())).expect("a control plane")
});

/// client-go's rules in a fifth of its time, for tests in which the time itself does not matter.
pub const QUICK: Timing = Timing {
    lease: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry: Duration::from_millis(400),
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

/// Stands for a lease on the shared control plane, in this runtime.
pub async fn stand(lease: &str, identity: &str, timing: Timing) -> Leadership {
    election(lease, identity, timing).start(PLANE.client().await.unwrap())
}

pub async fn leases() -> Api<Lease> {
    Api::namespaced(PLANE.client().await.unwrap(), NAMESPACE)
}

pub async fn holder(lease: &str) -> String {
    leases().await.get(lease).await.unwrap().spec.unwrap().holder_identity.unwrap_or_default()
}

/// Waits for something that must happen, and not later than this.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"))
}

/// A candidate in a runtime of its own, which is all that a process is as far as a Lease is concerned.
pub struct Process {
    pub leadership: Leadership,
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
    thread: JoinHandle<()>,
}

enum Order {
    /// Does nothing until the other end is dropped.
    Freeze(mpsc::Receiver<()>),
    /// Ends without a word.
    Die,
}

impl Process {
    pub async fn start(election: Election) -> Self {
        Self::start_with(PLANE.config().await.unwrap(), election)
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
