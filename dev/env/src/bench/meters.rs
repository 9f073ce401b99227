//! What it costs an insert to be counted: the same rows into a table with a meter and into one without.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use super::print;
use crate::error::Result;
use crate::{Postgres, progress};

/// How often each is measured; the fastest counts, as whatever else a machine does only adds.
const ROUNDS: usize = 5;

/// How rows come.
const WAYS: [Way; 4] = [
    Way { name: "a row a transaction", rows: 500, run: Run::Commits },
    Way { name: "a row a statement, one transaction", rows: 5_000, run: Run::OneTransaction },
    Way { name: "1,000 rows a statement", rows: 20_000, run: Run::Thousands },
    Way { name: "COPY of 100,000 rows", rows: 100_000, run: Run::Copy },
];

struct Way {
    name: &'static str,
    /// Of each session.
    rows: usize,
    run: Run,
}

#[derive(Clone, Copy)]
enum Run {
    Commits,
    OneTransaction,
    Thousands,
    Copy,
}

struct Table {
    insert: &'static str,
    thousand: &'static str,
    copy: &'static str,
}

const UNMETERED: Table = Table {
    insert: "INSERT INTO bench_plain (email) VALUES ($1)",
    thousand: "INSERT INTO bench_plain (email) SELECT * FROM unnest($1::text[])",
    copy: "COPY bench_plain (email) FROM STDIN",
};

const METERED: Table = Table {
    insert: "INSERT INTO bench_metered (email) VALUES ($1)",
    thousand: "INSERT INTO bench_metered (email) SELECT * FROM unnest($1::text[])",
    copy: "COPY bench_metered (email) FROM STDIN",
};

/// Both tables are as `users`, indexes and all. The limit is a number, so that it is compared with.
const TABLES: &str = "\
SET ROLE tenantry_owner;
CREATE TABLE public.bench_plain (LIKE public.users INCLUDING ALL);
CREATE TABLE public.bench_metered (LIKE public.users INCLUDING ALL);
SELECT tenantry.meter('benchRows', 'public.bench_metered');
INSERT INTO tenantry.limits VALUES ('benchRows', 1000000000);
RESET ROLE";

/// Measures in a tenant's database, and prints a table.
pub async fn compare(postgres: &Postgres, database: &str) -> Result<()> {
    let mut session = postgres.connect(database).await?;
    session.execute(TABLES).await?;
    print("counted and uncounted inserts, microseconds a row:");
    print(&format!("  {:<48} {:>10} {:>10} {:>10}", "", "uncounted", "counted", "more"));
    for way in WAYS {
        for sessions in [1, 4] {
            let step = progress::step(format!("{}, {sessions} sessions", way.name));
            let outcome = measure(postgres, database, &way, sessions, &mut session).await;
            let (plain, metered) = step.end(outcome)?;
            let name = format!("{}, {sessions} session{}", way.name, if sessions == 1 { "" } else { "s" });
            let more = metered - plain;
            print(&format!(
                "  {name:<48} {plain:>10.1} {metered:>10.1} {:>10}",
                format!("{more:+.1} {:+.0} %", more / plain * 100.0)
            ));
        }
    }
    session.execute("DROP TABLE public.bench_plain, public.bench_metered").await?;
    Ok(())
}

/// Microseconds a row, uncounted and counted: by turns, so that both meet the same weather.
async fn measure(
    postgres: &Postgres,
    database: &str,
    way: &Way,
    sessions: usize,
    cleaner: &mut PgConnection,
) -> Result<(f64, f64)> {
    let mut fastest = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        for (table, fastest) in [UNMETERED, METERED].iter().zip(&mut fastest) {
            cleaner.execute("TRUNCATE public.bench_plain, public.bench_metered").await?;
            cleaner.execute("CHECKPOINT").await?;
            let took = insert(postgres, database, way, table, sessions).await?;
            *fastest = fastest.min(took.as_secs_f64() * 1e6 / (way.rows * sessions) as f64);
        }
    }
    let [plain, metered] = fastest;
    Ok((plain, metered))
}

async fn insert(
    postgres: &Postgres,
    database: &str,
    way: &Way,
    table: &Table,
    sessions: usize,
) -> Result<Duration> {
    let mut open = Vec::new();
    for _ in 0..sessions {
        let mut session = postgres.connect(database).await?;
        session.execute("SET ROLE tenantry_rw").await?;
        let emails: Vec<String> =
            (0..way.rows).map(|_| format!("{}@bench.example", Uuid::new_v4())).collect();
        open.push((session, emails));
    }
    let begun = Instant::now();
    try_join_all(open.iter_mut().map(|(session, emails)| work(session, way.run, table, emails))).await?;
    let took = begun.elapsed();
    for (session, _) in open {
        session.close().await?;
    }
    Ok(took)
}

async fn work(session: &mut PgConnection, run: Run, table: &Table, emails: &[String]) -> Result<()> {
    match run {
        Run::Commits => {
            for email in emails {
                sqlx::query(table.insert).bind(email).execute(&mut *session).await?;
            }
        }
        Run::OneTransaction => {
            let mut transaction = session.begin().await?;
            for email in emails {
                sqlx::query(table.insert).bind(email).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
        Run::Thousands => {
            for thousand in emails.chunks(1_000) {
                sqlx::query(table.thousand).bind(thousand).execute(&mut *session).await?;
            }
        }
        Run::Copy => {
            let mut copy = session.copy_in_raw(table.copy).await?;
            for lines in emails.chunks(10_000) {
                copy.send((lines.join("\n") + "\n").into_bytes()).await?;
            }
            copy.finish().await?;
        }
    }
    Ok(())
}
