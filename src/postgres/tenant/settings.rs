//! The settings that are stored for tenants' logins, for their databases and for the groups: there should be none. A login
//! can store its own, for any database and of any size.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    domain::tenant_facts::{DatabaseProperties, LoginProperties, SessionSetting},
    postgres::{
        error::Result,
        identifier::{Ident, Literal, Script},
        server::{Server, run_despite_read_only},
        session::pool::Session,
    },
};

/// For how long settings are reset before the rest is left to the next drift check: the largest value takes seconds.
const RESET_LIMIT: Duration = Duration::from_secs(5);
/// The most small settings that are reset at once.
const MOST_SMALL: usize = 500;

/// Which settings are reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Those that are small. The others are found again by the next look.
    Small,
    /// All of them.
    All,
}

/// Resets the settings of a login, in every database, and those of its database, as far as `tenantry_admin` may.
pub(super) async fn reset_settings(
    session: &mut Session,
    login: &Ident,
    login_facts: &LoginProperties,
    database: Option<&DatabaseProperties>,
    extent: Extent,
) -> Result<()> {
    let of_database = database.iter().flat_map(|facts| facts.settings.iter()).map(|setting| (None, setting));
    let of_login = login_facts.settings.iter().map(|setting| (Some(login), setting));
    let (mut small, mut large) = (Script::new(), Vec::new());
    for (role, setting) in
        of_login.chain(of_database).filter(|(_, setting)| setting.resettable).take(MOST_SMALL)
    {
        match &setting.name {
            Some(name) => small.append(reset_one(role, setting, &Ident::new(name)?)?),
            None => large.push(reset_all(role, setting.database.as_deref())?),
        }
    }
    let doing = "reset settings";
    run_despite_read_only(session, doing, &small).await?;
    let began = Instant::now();
    for script in large.iter().filter(|_| extent == Extent::All) {
        if began.elapsed() < RESET_LIMIT {
            run_despite_read_only(session, doing, script).await?;
        }
    }
    Ok(())
}

fn reset_one(role: Option<&Ident>, setting: &SessionSetting, name: &Ident) -> Result<Script> {
    let database = setting.database.as_deref().map(Ident::new).transpose()?;
    Ok(match (role, database) {
        (Some(role), None) => Script::of("ALTER ROLE {} RESET {}", &[role, name]),
        (Some(role), Some(database)) => {
            Script::of("ALTER ROLE {} IN DATABASE {} RESET {}", &[role, &database, name])
        }
        (None, Some(database)) => Script::of("ALTER DATABASE {} RESET {}", &[&database, name]),
        (None, None) => Script::new(),
    })
}

/// Those that only a superuser may reset stay. `temp_file_limit` is the plan's.
fn reset_all(role: Option<&Ident>, database: Option<&str>) -> Result<Script> {
    let database = database.map(Ident::new).transpose()?;
    Ok(match (role, database) {
        (Some(role), None) => Script::of(
            "DO $reset$ DECLARE kept text; BEGIN \
                 SELECT substr(c, length('temp_file_limit=') + 1) INTO kept \
                 FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS c \
                 WHERE s.setdatabase = 0 AND s.setrole = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = {}) \
                     AND starts_with(c, 'temp_file_limit='); \
                 ALTER ROLE {} RESET ALL; \
                 IF kept IS NOT NULL AND has_parameter_privilege('temp_file_limit', 'SET') THEN \
                     EXECUTE format('ALTER ROLE %I SET temp_file_limit = %L', {}, kept); \
                 END IF; \
             END $reset$",
            &[&Literal::from(role), role, &Literal::from(role)],
        ),
        (Some(role), Some(database)) => {
            Script::of("ALTER ROLE {} IN DATABASE {} RESET ALL", &[role, &database])
        }
        (None, Some(database)) => Script::of("ALTER DATABASE {} RESET ALL", &[&database]),
        (None, None) => Script::new(),
    })
}

impl Server {
    /// Resets the settings of groups: no session uses them, and before 16 a tenant can store any number of them.
    pub async fn reset_group_settings(&self, found: &BTreeSet<(String, Option<String>)>) -> Result<()> {
        let mut session = self.admin().await?;
        for (group, database) in found {
            let reset = reset_all(Some(&Ident::new(group)?), database.as_deref())?;
            run_despite_read_only(&mut session, "reset settings of a group", &reset).await?;
        }
        session.release();
        Ok(())
    }
}
