//! The listener of a proxy: a port, and a thread with a runtime of its own.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::effects::Effects;
use super::fault::{ApiFault, Filter, Gate, Setting};
use crate::error::{Context, Error, Result};
use crate::ports;

/// A port that accepts connections until this is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    port: u16,
    setting: watch::Sender<Setting>,
    connections: Arc<AtomicU64>,
    close: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on a free port. `prepare` is called on the thread, in its runtime, and returns the function that serves a
    /// connection.
    pub(super) fn start<S, F>(
        name: &str,
        effects: &Effects,
        prepare: impl FnOnce() -> Result<S> + Send + 'static,
    ) -> Result<Self>
    where
        S: Fn(TcpStream, Gate) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let port = ports::free()?;
        let (setting, settings) = watch::channel(Setting::none());
        let connections = Arc::new(AtomicU64::new(0));
        let (close, closed) = oneshot::channel::<()>();
        let (report, reported) = std::sync::mpsc::channel();
        let (effects, count) = (effects.clone(), Arc::clone(&connections));
        // A current-thread runtime: no other connection proceeds between a decision and the write that follows it.
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(report.send(Err(error).context("creating a runtime"))),
            };
            runtime.block_on(async {
                let prepared = async {
                    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
                    Ok((prepare()?, listener.context(format!("listening on 127.0.0.1:{port}"))?))
                };
                match prepared.await {
                    Ok((serve, listener)) => {
                        drop(report.send(Ok(())));
                        let gate = || Gate::new(&effects, settings.clone());
                        tokio::select! {
                            () = accept(&listener, &count, gate, serve) => {}
                            _ = closed => {}
                        }
                    }
                    Err(error) => drop(report.send(Err(error))),
                }
            });
        };
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(run).context("starting a thread")?;
        reported.recv().map_err(|_| Error::message(format!("{name} did not start")))??;
        Ok(Self { port, setting, connections, close: Some(close), thread: Some(thread) })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn set(&self, fault: ApiFault, only: Option<Filter>) {
        self.setting.send_modify(|setting| setting.change(fault, only));
    }

    /// How many connections were accepted, including those that were closed at once.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.close.take());
        if let Some(thread) = self.thread.take()
            // The action of a trigger runs on this thread and may drop the last reference to the proxies.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

async fn accept<S, F>(listener: &TcpListener, count: &AtomicU64, gate: impl Fn() -> Gate, serve: S)
where
    S: Fn(TcpStream, Gate) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely out of file descriptors: retry when a connection has ended.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut gate = gate();
        if gate.is_closed() {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let serving = serve(stream, gate.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = gate.closed() => {}
                () = serving => {}
            }
        });
    }
}
