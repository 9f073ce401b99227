//! The statements of each row of the table, under the row's name.

mod data;
mod roles;
mod server;

/// All actions.
pub fn actions() -> impl Iterator<Item = &'static Action> {
    [data::ACTIONS, roles::ACTIONS, server::ACTIONS].into_iter().flatten()
}

/// A row's attempt.
pub struct Action {
    /// The row's name.
    pub name: &'static str,
    pub what: What,
    pub control: Control,
}

/// What is attempted. Words in braces are names that the stage knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Statements in a transaction that is rolled back.
    Statements(&'static [&'static str]),
    /// The same, and a condition that is true if they had an effect: PostgreSQL may accept and ignore them.
    Effect(&'static [&'static str], &'static str),
    /// Statements that each are a transaction, and those that undo them.
    Alone(&'static [&'static str], &'static [&'static str]),
    /// Such statements, and the condition.
    AloneEffect(&'static [&'static str], &'static str),
    /// A login to this database, with these parameters of the URL.
    Login(&'static str, &'static str),
    /// A login as the neighbour with the tenant's password.
    Password,
    /// A replication connection.
    Replication,
}

impl What {
    pub fn mentions(self, name: &str) -> bool {
        let (Self::Statements(statements)
        | Self::Effect(statements, _)
        | Self::Alone(statements, _)
        | Self::AloneEffect(statements, _)) = self
        else {
            return false;
        };
        statements.iter().any(|statement| statement.contains(name))
    }
}

/// Whether the same attempt succeeds for a superuser, so that a tenant's refusal is not that of a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Administrator,
    /// PostgreSQL refuses it for every role, or it would affect other tests, or the tenant can do it.
    Absent,
}

use Control::{Absent, Administrator};

const fn can(name: &'static str, what: What) -> Action {
    Action { name, what, control: Administrator }
}

const fn without_control(name: &'static str, what: What) -> Action {
    Action { name, what, control: Absent }
}
