//! `tenantry audit verify`.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;

use super::{AuditError, DIFFERENCES, RegistryArguments, print};
use crate::domain::activity_chain::{ChainFinding, ChainSummary, ChainVerifier, parse_heads};

/// How often progress is reported, and after what time for the first time.
const PROGRESS: Duration = Duration::from_secs(2);

/// Flags of `tenantry audit verify`.
#[derive(Args)]
#[command(after_help = "\
Reads the activity log and its archive, and computes the hash of each row again. A line per difference names the tenant \
and the row. With --heads, it also finds chains that were written again as a whole, or set back to an earlier time.\n\n\
Exit code: 0 no difference, 3 differences, 1 the check could not be made.\n\n\
Example:\n  tenantry audit verify --heads heads-2026-11-30.jsonl")]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    registry: RegistryArguments,

    /// File with the output of an earlier `tenantry audit heads`, to compare with
    #[arg(long, env = "TENANTRY_AUDIT_HEADS", value_name = "FILE")]
    heads: Option<PathBuf>,
}

/// Checks all chains.
pub(super) async fn verify(arguments: VerifyArguments) -> Result<ExitCode, AuditError> {
    let stored = match &arguments.heads {
        Some(file) => {
            let text = fs::read_to_string(file).map_err(|error| AuditError::File(file.clone(), error))?;
            parse_heads(&text).map_err(|error| AuditError::Heads(file.clone(), error))?
        }
        None => Vec::new(),
    };
    let registry = arguments.registry.connect().await?;
    let mut snapshot = registry.audit_snapshot().await?;
    let unlinked = snapshot.unlinked().await?;
    let mut verifier = ChainVerifier::new(snapshot.heads().await?, &unlinked, stored);
    let (mut last, mut reported) = (None, Instant::now());
    loop {
        let mut page = snapshot.linked_after(last.as_ref()).await?;
        for row in &page {
            verifier.check(row);
        }
        print_findings(&verifier.take_findings())?;
        if reported.elapsed() >= PROGRESS {
            // A closed stream does not end the check.
            let _ = writeln!(io::stderr(), "{} rows read", verifier.rows());
            reported = Instant::now();
        }
        match page.pop() {
            Some(row) => last = Some(row),
            None => break,
        }
    }
    let (findings, summary) = verifier.finish();
    print_findings(&findings)?;
    print(&conclusion(&summary, arguments.heads.is_some()))?;
    Ok(if summary.differences == 0 { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENCES) })
}

fn print_findings(findings: &[ChainFinding]) -> io::Result<()> {
    print(&findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())
}

fn conclusion(summary: &ChainSummary, compared: bool) -> String {
    let ChainSummary { rows, chains, stored, removed, differences } = summary;
    let stored = if compared { format!(", {stored} stored heads compared") } else { String::new() };
    let differences = match differences {
        0 => "no difference".to_owned(),
        1 => "1 difference".to_owned(),
        number => format!("{number} differences"),
    };
    let removed = match removed {
        0 => String::new(),
        number => format!(", {number} before them removed with the archive"),
    };
    format!("{rows} rows in {chains} chains{removed}{stored}: {differences}\n")
}
