//! The standard metrics of a process, from `/proc`: on Linux only.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// `/proc` counts processor time in ticks of this length, independent of the tick length of the kernel.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        if let Some(seconds) = processor_seconds() {
            let metric = ConstCounter::new(seconds);
            let name = "process_cpu_seconds";
            metric.encode(encoder.encode_descriptor(
                name,
                "Processor time",
                None,
                metric.metric_type(),
            )?)?;
        }
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory", resident_bytes()),
            ("process_open_fds", "Open file descriptors", open_files()),
            ("process_threads", "Threads", status_field("Threads:")),
        ] {
            if let Some(value) = value {
                let metric = ConstGauge::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
            }
        }
        Ok(())
    }
}

/// User and system time, fields 14 and 15 of `/proc/self/stat`; the second field may contain blanks.
fn processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<i64> {
    status_field("VmRSS:").map(|kibibytes| kibibytes * 1024)
}

fn open_files() -> Option<i64> {
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

/// The number in this line of `/proc/self/status`.
fn status_field(name: &str) -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_those_of_this_process() {
        let _one_more = fs::File::open("/proc/self/status").unwrap();
        assert!(resident_bytes().unwrap() > 500_000);
        assert!(open_files().unwrap() > 3);
        assert!(status_field("Threads:").unwrap() >= 1);
        let before = processor_seconds().unwrap();
        // Busy until the kernel has counted at least one more tick.
        let start = std::time::Instant::now();
        while processor_seconds().unwrap() <= before {
            assert!(start.elapsed().as_secs() < 30, "no processor time was counted");
        }
    }
}
