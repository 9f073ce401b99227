//! The programs of `docs/enforcing-state.md`, as they are printed, with a real registry, operator and HTTP: each cell of the
//! page's table, a suspension within a second, broken connections, lost notifications and a registry that is away.

mod answers;
mod program;
mod tenants;

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use crate::shell::{blocks, page};

use self::{
    answers::{Columns, rows},
    program::{Program, demand_printed},
    tenants::Stage,
};

const PAGE: &str = "enforcing-state.md";

/// How long a change may take until requests are answered by it.
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn programs_are_printed_as_they_are() {
    let page = page("enforcing-state.md");
    demand_printed(&page, "python", "fastapi/app.py");
    demand_printed(&page, "js", "express/app.mjs");
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn fastapi_enforces_the_state_as_printed() {
    enforces("FastAPI").await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn express_enforces_the_state_as_printed() {
    enforces("Express").await;
}

async fn enforces(section: &str) {
    let document = page(PAGE);
    let stage = Stage::set(&document, section).await;
    let program = Program::install(&document, section, &stage).await;
    program.demand_address(&stage).await;
    let mut running = program.start(&stage).await;
    printed_request_is_answered(&document, &running, &stage).await;
    every_cell_is_true(&document, &running, &stage).await;
    former_slug_leads_to_the_present_one(&running, &stage).await;
    suspension_takes_effect_within_a_second(&running, &stage).await;
    broken_connection_is_replaced(&running, &stage).await;
    lost_notification_is_made_up_for(&running, &stage).await;
    registry_that_is_away_closes_the_application(&running, &stage).await;
    running.stop().await;
}

/// The page's tenant is another one here.
async fn printed_request_is_answered(document: &str, program: &program::Running, stage: &Stage) {
    let request = blocks(document).pop().unwrap();
    assert!(request.starts_with("curl -i -H 'Host: acme.portal.example'"), "{request}");
    let answer = stage.shell.run(&program.here(&request.replace("acme", "active"))).await.to_lowercase();
    assert!(answer.contains("200 ok") && answer.contains("tenant-state: active"), "{answer}");
}

/// Host names have no case.
async fn former_slug_leads_to_the_present_one(program: &program::Running, stage: &Stage) {
    assert_eq!(program.ask("ACTIVE", "GET", &[]).await.status, 200);
    stage.rename("trial", "renamed").await;
    program.until("renamed", 200).await;
    program.until("trial", 308).await;
    for former in ["trial", "Trial"] {
        let head = program.ask(former, "POST", &[]).await.head;
        for line in
            ["location: //renamed.portal.example/notes", "cache-control: no-store", "tenant-state: moved"]
        {
            assert!(head.lines().any(|it| it == line), "{head}");
        }
    }
}

async fn every_cell_is_true(document: &str, program: &program::Running, stage: &Stage) {
    let mut wrong = Vec::new();
    let rows = rows(document);
    for state in tenants::STATES {
        assert_eq!(rows.iter().filter(|row| row.state == state).count(), 1, "{state}");
    }
    for row in rows.iter().filter(|row| row.state != "stale") {
        stage.prepare(&row.state).await;
        program.until_state(&row.state).await;
        for column in Columns::ALL {
            let expected = &row.cells[column as usize];
            let found = program.answer(&row.state, column).await;
            if found != *expected {
                wrong.push(format!("{} | {column:?} | {found} | instead of {expected}", row.state));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    program.demand_problem_details("blocked", "This account is suspended.").await;
    assert!(program.ask("trial", "GET", &[]).await.head.contains("tenant-state: trial"));
}

/// By the operator; and by the row alone, whose change begins at a moment that is known.
async fn suspension_takes_effect_within_a_second(program: &program::Running, stage: &Stage) {
    let mut late = Vec::new();
    for _ in 0..3 {
        let patched = Instant::now();
        stage.suspend("active", "Blocked").await;
        let (recorded, refused) =
            tokio::join!(stage.access_is("active", "Blocked"), program.until("active", 403));
        late.push(refused.saturating_duration_since(recorded));
        println!("refused {:?} after the patch", refused - patched);
        stage.resume("active").await;
        program.until("active", 200).await;
    }
    demand_a_second("after the operator recorded it", late);
    demand_a_second("after a change of the row", change_often(program, stage, false).await);
}

/// Also a change that no session heard of.
async fn broken_connection_is_replaced(program: &program::Running, stage: &Stage) {
    demand_a_second("with a broken connection", change_often(program, stage, true).await);
    stage.allow_login(false).await;
    stage.end_sessions().await;
    stage.set_access("active", "Blocked").await;
    stage.allow_login(true).await;
    program.until("active", 403).await;
    stage.set_access("active", "ReadWrite").await;
    program.until("active", 200).await;
}

async fn lost_notification_is_made_up_for(program: &program::Running, stage: &Stage) {
    stage.notifies(false).await;
    let changed = stage.set_access("active", "Blocked").await;
    let late = program.until("active", 403).await - changed;
    assert!(late < 2 * program::POLL + SECOND, "{late:?}");
    stage.notifies(true).await;
    stage.set_access("active", "ReadWrite").await;
    program.until("active", 200).await;
}

async fn registry_that_is_away_closes_the_application(program: &program::Running, stage: &Stage) {
    stage.allow_login(false).await;
    stage.end_sessions().await;
    let away = Instant::now();
    assert_eq!(program.ask("active", "GET", &[]).await.status, 200, "what was read is used for a while");
    let closed = program.until("active", 503).await - away;
    assert!(closed < program::STALE + program::POLL, "{closed:?}");
    let row = rows(&page(PAGE)).into_iter().find(|row| row.state == "stale").unwrap();
    for column in Columns::ALL {
        assert_eq!(program.answer("active", column).await, row.cells[column as usize], "{column:?}");
    }
    stage.allow_login(true).await;
    program.until("active", 200).await;
}

/// How long changes of a row take to be answered by, the session being ended before each.
async fn change_often(program: &program::Running, stage: &Stage, ends_sessions: bool) -> Vec<Duration> {
    let mut late = Vec::new();
    for (access, status) in [("Blocked", 403), ("ReadWrite", 200)].repeat(4) {
        if ends_sessions {
            stage.end_sessions().await;
        }
        let changed = stage.set_access("active", access).await;
        late.push(program.until("active", status).await - changed);
    }
    late
}

/// The median: on a busy machine, one of them waits for a processor.
fn demand_a_second(what: &str, mut late: Vec<Duration>) {
    late.sort();
    println!("answered so {what}: {late:?}");
    assert!(late[late.len() / 2] < SECOND, "{what}: {late:?}");
}

/// A statement of the test.
fn sql(text: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(text)
}
