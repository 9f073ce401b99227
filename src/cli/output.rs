//! What a command prints.

use std::io::{self, Write};

/// Prints a text. A reader that has read enough and closed the pipe, as in `tenantry crds | head -1`, is no failure; Rust's
/// own `print!` panics.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
