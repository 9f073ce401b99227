//! Where a tenant's data is.

use super::identity::TenantId;

/// Where a tenant's data is, and under which names. Recorded at registration, and never computed again: names in it may be older than
/// the rules that would compute them today. Only a rotation of the credentials, and a login that an adoption keeps, add others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The tenant; ownership comments carry its id.
    pub tenant: TenantId,
    /// The name of the DatabaseServer.
    pub server: String,
    /// The database.
    pub database: String,
    /// The schema, where the database is shared with other tenants (`isolation: Schema`).
    pub schema: Option<String>,
    /// The tenant's login.
    pub login: String,
    /// The login before it, which stays valid for a while after a rotation of the credentials, or after an adoption.
    pub previous_login: Option<String>,
    /// The login that only reads, where the Tenant asks for one.
    pub reader_login: Option<String>,
}

impl Placement {
    /// Every login that the tenant has: its login, the previous one, and the reader login.
    pub fn logins(&self) -> impl Iterator<Item = &str> {
        let all = [Some(&self.login), self.previous_login.as_ref(), self.reader_login.as_ref()];
        all.into_iter().flatten().map(String::as_str)
    }

    /// The logins beside the login.
    pub fn other_logins(&self) -> impl Iterator<Item = &str> {
        self.logins().skip(1)
    }

    /// The tenant as its previous login sees it: that is the login here, and the others are beside it.
    pub fn of_previous_login(&self) -> Option<Self> {
        let login = self.previous_login.clone()?;
        Some(Self { login, previous_login: Some(self.login.clone()), ..self.clone() })
    }

    /// The tenant as its reader login sees it: that is the login here, and the others are beside it.
    pub fn of_reader_login(&self) -> Option<Self> {
        let login = self.reader_login.clone()?;
        Some(Self { login, reader_login: Some(self.login.clone()), ..self.clone() })
    }

    /// The tenant with this role as its only login.
    pub fn with_login(&self, login: &str) -> Self {
        Self { login: login.to_owned(), previous_login: None, reader_login: None, ..self.clone() }
    }
}
