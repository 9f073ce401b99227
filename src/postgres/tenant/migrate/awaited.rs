//! Versions that the operator does not apply, but waits for.

/// What a module waits for that the operator does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// A run of its tool.
    Run,
    /// The report of a pipeline.
    Report {
        /// What was reported last.
        reported: Option<String>,
    },
    /// A module that it depends on, which waits itself.
    Module(String),
}

/// An applied file: module, version and checksum.
pub type Applied = (String, i32, Vec<u8>);
