//! The table of the page.

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub enum Columns {
    CustomerReads,
    CustomerWrites,
    StaffWithoutHeader,
    StaffReads,
    StaffWrites,
}

impl Columns {
    /// In the order of the table.
    pub const ALL: [Self; 5] = [
        Self::CustomerReads,
        Self::CustomerWrites,
        Self::StaffWithoutHeader,
        Self::StaffReads,
        Self::StaffWrites,
    ];
}

/// A state of a tenant, and the answers.
pub struct Row {
    pub state: String,
    /// In the order of `Columns::ALL`.
    pub cells: Vec<String>,
}

pub fn rows(page: &str) -> Vec<Row> {
    let head = "| state | in the registry | customer reads | customer writes | staff without the header | staff reads \
                | staff writes |";
    let table = page.split(head).nth(1).unwrap().split("\n\n").next().unwrap();
    let rows: Vec<Row> = table
        .lines()
        .skip(2)
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            assert_eq!(cells.len(), 7, "{line}");
            Row { state: cells[0].to_owned(), cells: cells[2..].iter().map(ToString::to_string).collect() }
        })
        .collect();
    assert_eq!(rows.len(), 9);
    rows
}
