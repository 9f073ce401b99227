//! The undo of a takeover: a database whose tenant was never active goes back to its former owner. Nothing of it is dropped
//! but the schema `tenantry`; what modules created there stays, with that owner.
//!
//! The rights on the database, its owner and its comment come last, in one transaction: until then it is the tenant's, and
//! closed. Before PUBLIC may connect again, Tenantry's groups lose their rights there: they have the logins of all tenants.

use crate::{
    domain::{
        placement::Placement,
        takeover::{DatabaseContent, Former, FormerLogin, FoundObject, FoundRole, Reach, alter_keyword},
    },
    postgres::{
        catalog::takeover::{read_closed_schemas, read_content, read_roles},
        error::{Error, Result},
        identifier::{ADMIN, DBA, GROUPS, Ident, Keyword, Literal, Number, OWNER, Quoted, Script},
        server::{Server, run_on},
        session::connect::ConnectAs,
    },
};

use super::takeover::{BATCH, borrow};

/// What an undo came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenBack {
    /// It is as it was: its owner, the owners of its objects, and who may connect.
    Returned,
    /// There was nothing to give back: the database is not this tenant's, or was never claimed.
    Untouched,
    /// Its former owner does not exist any more, or was Tenantry's own role: it has no comment, and is closed.
    Left,
}

impl Server {
    /// Gives a database back. A role that is out of reach now is an error, with the statement that an administrator runs.
    pub async fn give_back(&self, placement: &Placement, former: &Former) -> Result<GivenBack> {
        let name = Ident::database(placement)?;
        let facts = self.observe(placement).await?;
        match facts.database {
            Some(found) if found.ownership.is_ours() && found.oid == former.oid => {}
            _ => return Ok(GivenBack::Untouched),
        }
        let kept = facts.previous.and_then(|previous| previous.role).filter(|role| role.ownership.is_ours());
        let login = former.login.as_ref().filter(|login| kept.is_some_and(|role| role.oid == login.oid));
        let mut session = self.admin().await?;
        let options_known = session.has_grant_options();
        let roles = read_roles(&mut session, &former.roles()).await?;
        session.release();
        let is_owner = |role: &FoundRole| {
            role.name == former.owner || former.objects.iter().any(|object| object.owner == role.name)
        };
        if let Some(role) = roles.iter().find(|role| role.reach == Reach::OutOfReach && is_owner(role)) {
            return Err(Error::MissingRight(format!(
                "database {name} cannot be given back to {}: as a role with ADMIN OPTION on it, or a superuser, run: GRANT {} TO tenantry_admin WITH INHERIT TRUE, SET TRUE;",
                role.name, role.sql
            )));
        }
        let undo = Undo { name: &name, former, login, roles: &roles, options_known };
        let connect_as = ConnectAs::Admin(name.as_str());
        let mut session =
            self.inner.sessions.single(&connect_as, "connect to give the database back").await?;
        session.learn_pid().await;
        let result = async {
            let content = read_content(&mut session, None).await?;
            let closed = read_closed_schemas(&mut session, &former.roles()).await?;
            for script in undo.content_scripts(&content, &closed)? {
                run_on(&mut session, "give the objects back", &script).await?;
            }
            Ok(())
        };
        let result: Result<()> = result.await;
        session.close_and_wait().await;
        result?;
        let _one = self.lock_tenant(placement.tenant).await;
        self.run("give the database back", &undo.database_script()?).await?;
        Ok(if undo.new_owner(&former.owner).is_some() { GivenBack::Returned } else { GivenBack::Left })
    }
}

/// An undo, with the roles as they are now.
struct Undo<'a> {
    name: &'a Ident,
    former: &'a Former,
    /// The kept login, if it is the role of before.
    login: Option<&'a FormerLogin>,
    roles: &'a [FoundRole],
    options_known: bool,
}

impl Undo<'_> {
    /// A role that something can be given to: it exists, and is not one of Tenantry's own.
    fn new_owner(&self, name: &str) -> Option<&FoundRole> {
        self.roles
            .iter()
            .find(|role| role.name == name && matches!(role.reach, Reach::Member | Reach::Grantable))
    }

    /// The scripts for the database itself. Each is a transaction, and all may be run again.
    fn content_scripts(&self, content: &DatabaseContent, closed: &[(String, String)]) -> Result<Vec<Script>> {
        let is_ours = |object: &&FoundObject| {
            (object.owner == OWNER.as_str() || object.owner == DBA.as_str())
                && object.identity != "tenantry"
                && !object.identity.starts_with("tenantry.")
        };
        let (schemas, objects): (Vec<&FoundObject>, Vec<&FoundObject>) =
            content.objects.iter().filter(is_ours).partition(|object| object.kind == "schema");

        // A new owner needs CREATE on the schema, and that of a schema on the database.
        let (mut open, mut close) = (as_dba(), as_dba());
        for (schema, role) in closed.iter().filter(|(_, role)| self.new_owner(role).is_some()) {
            let (schema, role) = (Quoted::by_postgres(schema), Ident::new(role)?);
            open.add("GRANT CREATE ON SCHEMA {} TO {}", &[&schema, &role]);
            close.add("REVOKE CREATE ON SCHEMA {} FROM {}", &[&schema, &role]);
        }
        for role in self.roles.iter().filter(|role| self.new_owner(&role.name).is_some()) {
            open.add("GRANT CREATE ON DATABASE {} TO {}", &[self.name, &Ident::new(&role.name)?]);
        }
        // The groups own nothing: it revokes what they have in this database, as long as the objects are Tenantry's.
        let [rw, shrink, ro] = &GROUPS;
        let mut groups = Script::new();
        for role in [rw, shrink, ro, &OWNER] {
            borrow(&mut groups, role, self.options_known);
        }
        groups.add("DROP OWNED BY {}, {}, {}", &[rw, shrink, ro]);
        groups.add("REVOKE {}, {}, {}, {} FROM {}", &[rw, shrink, ro, &OWNER, &ADMIN]);
        let mut scripts = vec![groups, open];
        for batch in objects.chunks(BATCH) {
            scripts.push(self.owner_script(batch)?);
        }
        scripts.push(close);

        let mut clean = as_dba();
        clean.add("DROP SCHEMA IF EXISTS tenantry CASCADE", &[]);
        for schema in
            content.objects.iter().filter(|object| object.kind == "schema" && object.identity != "tenantry")
        {
            let is_open = schema.owner == DBA.as_str() || schema.owner == "pg_database_owner";
            if is_open {
                let identity = Quoted::by_postgres(&schema.identity);
                clean
                    .add("REVOKE ALL ON SCHEMA {} FROM {}, {}, {}, {}", &[&identity, &OWNER, rw, shrink, ro]);
                self.grant_again(&mut clean, schema)?;
            }
        }
        scripts.push(clean);
        for batch in schemas.chunks(BATCH) {
            scripts.push(self.owner_script(batch)?);
        }
        Ok(scripts)
    }

    /// Hands objects to their former owners, with the rights that PUBLIC and the kept login had.
    fn owner_script(&self, objects: &[&FoundObject]) -> Result<Script> {
        let mut changes = Script::new();
        let mut owners: Vec<&FoundRole> = Vec::new();
        for object in objects {
            let Some(owner) = self.new_owner(self.former.owner_of(object.catalog, object.oid)) else {
                continue;
            };
            let Some(keyword) = alter_keyword(&object.kind) else { continue };
            if object.kind != "schema" {
                self.grant_again(&mut changes, object)?;
            }
            let identity = Quoted::by_postgres(&object.identity);
            changes
                .add("ALTER {} {} OWNER TO {}", &[&Keyword(keyword), &identity, &Ident::new(&owner.name)?]);
            if owner.reach == Reach::Grantable && !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        if changes.is_empty() {
            return Ok(changes);
        }
        let mut script = Script::new();
        for owner in &owners {
            borrow(&mut script, &Ident::new(&owner.name)?, self.options_known);
        }
        borrow(&mut script, &OWNER, self.options_known);
        script.append(changes);
        script.add("REVOKE {} FROM {}", &[&OWNER, &ADMIN]);
        for owner in &owners {
            script.add("REVOKE {} FROM {}", &[&Ident::new(&owner.name)?, &ADMIN]);
        }
        Ok(script)
    }

    /// Grants PUBLIC and the kept login the rights that they had on an object.
    fn grant_again(&self, script: &mut Script, object: &FoundObject) -> Result<()> {
        const PRIVILEGES: [&str; 10] = [
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "TRUNCATE",
            "REFERENCES",
            "TRIGGER",
            "USAGE",
            "EXECUTE",
            "CREATE",
        ];
        let keyword = match object.kind.as_str() {
            "schema" => "SCHEMA",
            "sequence" => "SEQUENCE",
            "function" | "procedure" | "aggregate" => "ROUTINE",
            "table" | "view" | "materialized view" | "foreign table" => "TABLE",
            _ => return Ok(()),
        };
        let Some(had) = self.former.object(object.catalog, object.oid) else { return Ok(()) };
        let (identity, keyword) = (Quoted::by_postgres(&object.identity), Keyword(keyword));
        for privilege in PRIVILEGES {
            let is_one_of = |had: &[String]| had.iter().any(|had| had == privilege);
            if is_one_of(&had.public) {
                script.add("GRANT {} ON {} {} TO PUBLIC", &[&Keyword(privilege), &keyword, &identity]);
            }
            if let Some(login) = self.login.filter(|_| is_one_of(&had.login)) {
                let login = Ident::new(&login.name)?;
                script.add("GRANT {} ON {} {} TO {}", &[&Keyword(privilege), &keyword, &identity, &login]);
            }
        }
        Ok(())
    }

    /// Makes the kept login what it was: no tenant's. It had no settings.
    fn add_login(&self, script: &mut Script, former: &FormerLogin) -> Result<()> {
        let login = Ident::new(&former.name)?;
        let [rw, shrink, ro] = &GROUPS;
        script.add("REVOKE {}, {}, {} FROM {}", &[rw, shrink, ro, &login]);
        script.add("ALTER ROLE {} LOGIN CONNECTION LIMIT {}", &[&login, &Number(former.connection_limit)]);
        script.add("ALTER ROLE {} RESET ALL", &[&login]);
        match &former.comment {
            Some(comment) => script.add("COMMENT ON ROLE {} IS {}", &[&login, &Literal::new(comment)?]),
            None => script.add("COMMENT ON ROLE {} IS NULL", &[&login]),
        }
        Ok(())
    }

    /// The rights on the database, its comment and its owner, in this order: the last makes it the former owner's.
    fn database_script(&self) -> Result<Script> {
        const PRIVILEGES: [&str; 3] = ["CONNECT", "CREATE", "TEMPORARY"];
        let (name, former) = (self.name, self.former);
        let owner = self.new_owner(&former.owner);
        let mut script = Script::new();
        let borrowed = owner.filter(|owner| owner.reach == Reach::Grantable);
        if let Some(owner) = borrowed {
            borrow(&mut script, &Ident::new(&owner.name)?, self.options_known);
        }
        script.add("REVOKE ALL ON DATABASE {} FROM {}", &[name, &OWNER]);
        for role in self.roles.iter().filter(|role| role.reach != Reach::Ours) {
            script.add("REVOKE ALL ON DATABASE {} FROM {}", &[name, &Ident::new(&role.name)?]);
        }
        // A database that stays Tenantry's stays closed.
        for rights in former.rights.iter().filter(|_| owner.is_some()) {
            let role =
                rights.role.as_ref().filter(|role| self.roles.iter().any(|known| known.name == **role));
            for privilege in
                PRIVILEGES.into_iter().filter(|known| rights.privileges.iter().any(|had| had == known))
            {
                match (role, &rights.role) {
                    (Some(role), _) => {
                        script.add(
                            "GRANT {} ON DATABASE {} TO {}",
                            &[&Keyword(privilege), name, &Ident::new(role)?],
                        );
                    }
                    (None, None) => {
                        script.add("GRANT {} ON DATABASE {} TO PUBLIC", &[&Keyword(privilege), name])
                    }
                    // The role does not exist any more.
                    (None, Some(_)) => {}
                }
            }
        }
        if let Some(login) = self.login {
            self.add_login(&mut script, login)?;
        }
        script.add("ALTER DATABASE {} CONNECTION LIMIT {}", &[name, &Number(former.connection_limit)]);
        match &former.comment {
            Some(comment) => script.add("COMMENT ON DATABASE {} IS {}", &[name, &Literal::new(comment)?]),
            None => script.add("COMMENT ON DATABASE {} IS NULL", &[name]),
        }
        if let Some(owner) = owner {
            let owner_name = Ident::new(&owner.name)?;
            script.add("ALTER DATABASE {} OWNER TO {}", &[name, &owner_name]);
            if borrowed.is_some() {
                script.add("REVOKE {} FROM {}", &[&owner_name, &ADMIN]);
            }
        }
        Ok(script)
    }
}

fn as_dba() -> Script {
    Script::of("SET LOCAL ROLE {}", &[&DBA])
}
