//! The table of `docs/security.md`.

/// The heading of the table's section.
const SECTION: &str = "## What a tenant's login can and cannot do";
/// The columns: the action, one per access level, and the explanation.
const COLUMNS: usize = 6;

/// A row: an action, and the result at each level.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    pub action: String,
    pub cells: [String; 4],
}

/// The rows of the table. A row without results is a heading.
pub fn rows(page: &str) -> Vec<Row> {
    let section = page.split(SECTION).nth(1).unwrap_or_else(|| panic!("no section {SECTION:?}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    assert_eq!(fields.len(), COLUMNS, "columns in {line}");
    let (action, cells, why) = (fields[0], &fields[1..5], fields[5]);
    if cells.iter().all(|cell| cell.is_empty()) {
        return None;
    }
    assert!(!why.is_empty(), "{action}: nothing says what stops it, or why it is harmless");
    Some(Row { action: action.to_owned(), cells: std::array::from_fn(|at| cells[at].to_owned()) })
}

/// What a cell says of a version: `yes`, `no`, or `no` with an SQLSTATE. Where 15 and 18 differ, the cell has both, such as
/// `15: yes; 18: no (42501)`.
pub fn expected(cell: &str, major: u16) -> Result<String, String> {
    let own = format!("{major}: ");
    let result = match cell.split_once("; ") {
        None => cell,
        Some((a, b)) => [a, b].into_iter().find_map(|part| part.strip_prefix(&own)).unwrap_or_default(),
    };
    let code = result.strip_prefix("no (").and_then(|rest| rest.strip_suffix(')'));
    let is_code = code.is_some_and(|code| code.len() == 5 && code.chars().all(char::is_alphanumeric));
    if is_code || ["yes", "no"].contains(&result) {
        Ok(result.to_owned())
    } else {
        Err(format!("{cell:?} is no result on {major}"))
    }
}

#[test]
fn results_are_read_by_version() {
    for (cell, on_15, on_18) in [
        ("yes", Some("yes"), Some("yes")),
        ("no (42501)", Some("no (42501)"), Some("no (42501)")),
        ("15: yes; 18: no", Some("yes"), Some("no")),
        ("15: yes", None, None),
        ("15: yes; 16: no", Some("yes"), None),
        ("no (425)", None, None),
        ("maybe", None, None),
    ] {
        assert_eq!(expected(cell, 15).ok().as_deref(), on_15, "{cell}");
        assert_eq!(expected(cell, 18).ok().as_deref(), on_18, "{cell}");
    }
}

#[test]
fn headings_and_other_sections_are_no_rows() {
    let page = format!(
        "| a | b |\n{SECTION}\n\n| action | A | B | C | D | why |\n|--|--|--|--|--|--|\n| **rows** | | | | | |\n\
         | read | yes | no | no | no | x |\n\n## Next\n| other | yes | yes | yes | yes | y |\n"
    );
    let cells = ["yes", "no", "no", "no"].map(str::to_owned);
    assert_eq!(rows(&page), [Row { action: "read".to_owned(), cells }]);
}
