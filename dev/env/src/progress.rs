//! Reports slow steps on stderr, with the time they take.
//!
//! The lines are plain text without cursor movement: they are readable in a terminal, in a CI log, and when two parts
//! start at the same time. They are written to stderr directly: `cargo test` captures `eprintln!`.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::error::Result;

static EVERY_STEP: AtomicBool = AtomicBool::new(false);

/// Reports every step that ends, also a quick one. For commands; a test run reports only slow steps.
pub fn report_every_step() {
    EVERY_STEP.store(true, Ordering::Relaxed);
}

/// Writes one line of progress.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A step that may take long: reported after two seconds, then at intervals, and with its duration when it ends.
#[derive(Debug)]
pub struct Step {
    name: Arc<str>,
    started: Instant,
    announced: Arc<AtomicBool>,
    failed: bool,
    ticker: Option<(Sender<()>, std::thread::JoinHandle<()>)>,
}

/// Begins a step; it ends when the value is dropped.
pub fn step(name: impl Into<String>) -> Step {
    let name: Arc<str> = Arc::from(name.into());
    let started = Instant::now();
    let announced = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = channel();
    let ticker = std::thread::Builder::new().name("progress".to_owned()).spawn({
        let (name, announced) = (Arc::clone(&name), Arc::clone(&announced));
        move || tick(&name, started, &announced, &receiver)
    });
    Step { name, started, announced, failed: false, ticker: ticker.ok().map(|thread| (sender, thread)) }
}

impl Step {
    /// Ends the step with its result.
    pub fn end<T>(mut self, outcome: Result<T>) -> Result<T> {
        self.failed = outcome.is_err();
        outcome
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.ticker.take() {
            drop(sender);
            let _ = thread.join();
        }
        if self.announced.load(Ordering::Relaxed) || EVERY_STEP.load(Ordering::Relaxed) {
            let outcome = if self.failed { "FAILED after" } else { "done in" };
            line(&format!("  {}: {outcome} {}", self.name, elapsed(self.started)));
        }
    }
}

fn tick(name: &str, started: Instant, announced: &AtomicBool, ended: &Receiver<()>) {
    for wait in [2, 8, 10, 10].into_iter().chain(std::iter::repeat(30)) {
        if ended.recv_timeout(Duration::from_secs(wait)) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        let first = !announced.swap(true, Ordering::Relaxed);
        line(&if first { format!("  {name} …") } else { format!("  {name} … {}", elapsed(started)) });
    }
}

/// The formatted time since then.
fn elapsed(since: Instant) -> String {
    format_duration(since.elapsed())
}

/// A duration as text: `0.3 s`, `42 s`, `3 min 5 s`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_formatted_by_its_size() {
        assert_eq!(format_duration(Duration::from_millis(340)), "0.3 s");
        assert_eq!(format_duration(Duration::from_secs(42)), "42 s");
        assert_eq!(format_duration(Duration::from_secs(185)), "3 min 5 s");
    }
}
