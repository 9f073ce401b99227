//! Who may do what: every cell of the table in `docs/access.md` is tried with a request to the API server, as a user who has
//! that one role. The request of a row is in `acts.rs`, under the row's name.

mod acts;
mod stage;
mod table;

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{Api, api::ListParams};

use self::{
    acts::{Act, acts},
    stage::{Outcome, ROLES, Stage},
    table::{Row, differences, rows},
};

const PAGE: &str = include_str!("../../docs/access.md");

/// Verbs of Kubernetes itself.
const STANDARD: [&str; 8] =
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

#[tokio::test]
async fn table_of_access_is_true() {
    let stage = Stage::set("access").await;
    let table = rows(PAGE);
    let acts = acts();
    let grid = |outcomes: &[Vec<Outcome>]| -> Vec<Row> {
        let row = |(act, cells): (&Act, &Vec<Outcome>)| Row {
            act: act.name.to_owned(),
            cells: cells.iter().map(ToString::to_string).collect(),
            why: String::new(),
        };
        acts.iter().zip(outcomes).map(row).collect()
    };
    // The API server follows roles and policies by watches of its own.
    let wait = stage.fleet.until("the API server answers as docs/access.md has it");
    let tried = wait
        .observe(async || {
            let tried = grid(&stage.try_all(&acts, true).await);
            let wrong = differences(&table, &tried);
            if wrong.is_empty() { Ok(tried) } else { Err(wrong) }
        })
        .await;

    // A cell that is changed by hand is found, and so is a row that is removed, renamed or added.
    for row in 0..table.len() {
        for (cell, role) in ROLES.iter().enumerate() {
            let mut changed = table.clone();
            let other = if changed[row].cells[cell] == "yes" { "no" } else { "yes" };
            changed[row].cells[cell] = other.to_owned();
            assert_eq!(differences(&changed, &tried).len(), 1, "{} | {}", table[row].act, role.name);
        }
        let mut changed = table.clone();
        let removed = changed.remove(row);
        assert_eq!(differences(&changed, &tried).len(), 1, "{}", removed.act);
        changed.push(Row { act: format!("not {}", removed.act), ..removed });
        assert_eq!(differences(&changed, &tried).len(), 2);
    }

    // What destroys nothing is done, and not only allowed.
    let real: Vec<Act> = acts.into_iter().filter(|act| act.real).collect();
    assert!(real.len() >= 5);
    let done = stage.try_all(&real, false).await;
    for (act, outcomes) in real.iter().zip(done) {
        let expected = &table.iter().find(|row| row.act == act.name).unwrap().cells;
        let outcomes: Vec<String> = outcomes.iter().map(ToString::to_string).collect();
        assert_eq!(&outcomes, expected, "{}", act.name);
    }
}

#[tokio::test]
async fn table_has_every_role_and_every_verb() {
    let stage = Stage::set("access-roles").await;
    let roles = Api::<ClusterRole>::all(stage.fleet.client.clone());
    let all = roles.list(&ListParams::default()).await.unwrap();
    let ours = all.iter().filter(|role| {
        let labels = role.metadata.labels.iter().flatten();
        labels.into_iter().any(|(label, _)| label.starts_with("tenantry.dev/aggregate-to-"))
    });
    let ours: BTreeSet<&str> = ours.map(|role| role.metadata.name.as_deref().unwrap()).collect();
    let columns: BTreeSet<&str> =
        ROLES.iter().map(|role| role.name).filter(|name| name.starts_with("tenantry-")).collect();
    assert_eq!(ours, columns);

    let operator =
        all.iter().find(|role| role.metadata.name.as_deref() == Some("tenantry-platform-operator"));
    let rules = operator.unwrap().rules.iter().flatten();
    let verbs: BTreeSet<&str> = rules.flat_map(|rule| rule.verbs.iter().map(String::as_str)).collect();
    let own = verbs.iter().filter(|verb| !STANDARD.contains(verb));
    for verb in own {
        let deciding = rows(PAGE).into_iter().any(|row| row.why.contains(&format!("`{verb}`")));
        assert!(deciding, "no row of docs/access.md is decided by the verb {verb}");
    }
}
