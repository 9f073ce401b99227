//! What a tenant's login can and cannot do: every cell of the table in `docs/security.md` is tried, on both versions and
//! at every access level. The statements of a row are in `actions.rs`, under the row's name.

mod actions;
mod attempt;
mod remedies;
mod stage;
mod table;

use std::collections::BTreeMap;

use tenantry::domain::access::AccessLevel;
use tenantry_dev::Postgres;

use crate::servers::SERVERS;

use self::{
    actions::{Action, Control, actions},
    attempt::{Actor, Outcome},
    stage::Stage,
    table::{Row, rows},
};

const PAGE: &str = include_str!("../../docs/security.md");

/// The levels, in the order of the table's columns.
const LEVELS: [AccessLevel; 4] =
    [AccessLevel::ReadWrite, AccessLevel::ShrinkOnly, AccessLevel::ReadOnly, AccessLevel::Blocked];

/// A statement with such an error proves nothing: it has a mistake, or names what does not exist.
const MISTAKES: [&str; 8] = ["42601", "42P01", "42883", "42703", "42704", "3F000", "22023", "0A000"];
/// PostgreSQL refuses this with one of those codes; an administrator's attempt succeeds.
const NO_MISTAKE: &str = "rename its own login";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_of_the_threat_model_is_true_on_15() {
    try_the_table(&SERVERS[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_of_the_threat_model_is_true_on_18() {
    try_the_table(&SERVERS[1]).await;
}

#[test]
fn each_row_has_its_statements_and_a_possible_result() {
    let rows = rows(PAGE);
    let mut wrong = Vec::new();
    for Row { action, cells } in &rows {
        let known = actions().filter(|known| known.name == action).count();
        if known != 1 {
            wrong.push(format!("{action:?} is {known} times in actions.rs"));
        }
        if rows.iter().filter(|row| row.action == *action).count() != 1 {
            wrong.push(format!("{action:?} is in the table more than once"));
        }
        for cell in cells {
            let mistake = MISTAKES.iter().find(|code| cell.contains(*code));
            if mistake.is_some() && action != NO_MISTAKE {
                wrong.push(format!("{action:?}: {cell} is the code of a mistake"));
            }
            if let Err(why) =
                [15, 18].into_iter().try_for_each(|major| table::expected(cell, major).map(drop))
            {
                wrong.push(format!("{action:?}: {why}"));
            }
        }
    }
    for Action { name, .. } in actions() {
        if !rows.iter().any(|row| row.action == *name) {
            wrong.push(format!("{name:?} is not in the table"));
        }
    }
    assert!(rows.len() >= 40, "{} rows", rows.len());
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

async fn try_the_table(postgres: &'static Postgres) {
    let major = postgres.binaries().major;
    let stage = Stage::set(postgres).await.unwrap();
    let rows: BTreeMap<String, Row> = rows(PAGE).into_iter().map(|row| (row.action.clone(), row)).collect();
    let mut wrong = Vec::new();
    for (column, level) in LEVELS.into_iter().enumerate() {
        stage.set_access(level).await;
        let mut shared = None;
        for action in actions() {
            let outcome = stage.attempt(Actor::Tenant, level, action, &mut shared).await;
            let outcome = outcome.map_or_else(|why| why, |outcome| outcome.to_string());
            let row = rows.get(action.name);
            let cell = row.map_or("missing", |row| &row.cells[column]);
            let expected = table::expected(cell, major).unwrap_or_default();
            if outcome != expected {
                wrong.push(format!("{level} | {} | {outcome} | instead of {expected:?}", action.name));
            }
        }
    }
    let mut shared = None;
    for action in actions().filter(|action| action.control == Control::Administrator) {
        let (actor, level) = (Actor::Administrator, AccessLevel::ReadWrite);
        let outcome = stage.attempt(actor, level, action, &mut shared).await;
        if outcome != Ok(Outcome::Yes) {
            wrong.push(format!("an administrator | {} | {outcome:?}", action.name));
        }
    }
    stage.clear().await.unwrap();
    assert!(wrong.is_empty(), "on PostgreSQL {major}:\n{}\n", wrong.join("\n"));
}
