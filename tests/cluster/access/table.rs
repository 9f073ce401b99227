//! The table of `docs/access.md`, and what differs from it.

use super::stage::ROLES;

/// A row of the table: an act, and whether each role may do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub act: String,
    /// In the order of `ROLES`: yes or no.
    pub cells: Vec<String>,
    /// What decides.
    pub why: String,
}

/// The rows of a page's table. Its columns are the roles.
pub fn rows(page: &str) -> Vec<Row> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = page.lines().skip_while(|line| !line.starts_with("| act |"));
    let head = cells(lines.next().expect("docs/access.md has no table that begins with `act`"));
    let columns: Vec<String> = ROLES.iter().map(|role| format!("`{}`", role.name)).collect();
    assert_eq!(head[1..head.len() - 1], columns, "docs/access.md: the columns");
    let lines = lines.skip(1).take_while(|line| line.starts_with('|'));
    let rows: Vec<Row> = lines
        .map(cells)
        // A heading within the table.
        .filter(|cells| !cells[0].starts_with("**"))
        .map(|mut cells| {
            assert_eq!(cells.len(), ROLES.len() + 2, "{cells:?}");
            let (act, why) = (cells.remove(0), cells.pop().unwrap());
            assert!(cells.iter().all(|cell| ["yes", "no"].contains(&cell.as_str())), "{act}: {cells:?}");
            Row { act, cells, why }
        })
        .collect();
    rows
}

/// What is not as the table has it, a text for each cell, or for a row that only one of them has.
pub fn differences(table: &[Row], tried: &[Row]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Row { act, cells, .. } in table {
        let Some(row) = tried.iter().find(|row| row.act == *act) else {
            wrong.push(format!("{act:?} is in docs/access.md, and not in acts.rs"));
            continue;
        };
        for ((role, expected), outcome) in ROLES.iter().zip(cells).zip(&row.cells) {
            if expected != outcome {
                wrong.push(format!("{act} | {} | {outcome} | instead of {expected}", role.name));
            }
        }
    }
    let missing = tried.iter().filter(|row| !table.iter().any(|known| known.act == row.act));
    wrong.extend(missing.map(|row| format!("{:?} is not in docs/access.md", row.act)));
    wrong
}
