//! The properties of a tenant's login and database that are the same at every access level.

use crate::{
    domain::tenant_facts::{DatabaseProperties, LoginProperties},
    postgres::identifier::{Ident, Script},
};

/// The statements that bring them to what they should be; none, if they are. Memberships that are not as Tenantry grants
/// them are revoked, to be granted again.
pub(super) fn properties_script(
    database: &Ident,
    database_facts: Option<&DatabaseProperties>,
    login: &Ident,
    facts: &LoginProperties,
) -> Script {
    let mut script = Script::new();
    if !facts.inherits {
        script.add("ALTER ROLE {} INHERIT", &[login]);
    }
    if facts.valid_until.is_some() {
        script.add("ALTER ROLE {} VALID UNTIL 'infinity'", &[login]);
    }
    for group in &facts.flawed_groups {
        if let Ok(group) = Ident::new(group) {
            script.add("REVOKE {} FROM {} CASCADE", &[&group, login]);
        }
    }
    let Some(facts) = database_facts else { return script };
    if facts.is_template {
        script.add("ALTER DATABASE {} IS_TEMPLATE false", &[database]);
    }
    script
}
