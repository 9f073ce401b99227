//! A database that existed before its tenant is taken over: claimed by its ownership comment, its objects handed to
//! `tenantry_owner`, and prepared for migrations.
//!
//! The claim is one transaction on the shared catalogs: two tenants that claim one database wait for each other, and the
//! second one finds the comment of the first. From then on only the operator connects. The rest is repeated until
//! nothing is left to change. `tenantry_admin` becomes a member of an owner for one transaction at a time.

use sqlx::Connection;

use crate::{
    domain::{
        placement::Placement,
        record::ModuleVersion,
        structure::SchemaPart,
        takeover::{
            DatabaseContent, FoundDatabase, FoundLogin, FoundObject, FoundRole, Reach, alter_keyword,
            new_owner,
        },
        tenant_facts::Ownership,
    },
    modules::{BOOTSTRAP, Migration, Module, ModuleSet},
    postgres::{
        catalog::{
            ownership,
            structure::read_parts,
            takeover::{read_content, read_database},
        },
        error::{Error, Result},
        identifier::{ADMIN, DBA, GROUPS, Ident, Keyword, Literal, Number, OWNER, Quoted, Script},
        server::{Server, run_on},
        session::{
            connect::{ConnectAs, STATEMENT_LIMIT, with_timeout},
            pool::Session,
        },
    },
};

use super::databases::end_sessions;

/// How many objects change their owner in one transaction: each keeps locks until its end.
pub(super) const BATCH: usize = 200;
/// How often sessions are ended until none is left.
const ROUNDS: u32 = 50;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
const CLAIM: &str = "claim the database";

impl Server {
    /// Reads a database that could be taken over, and what modules may have created there; none if it does not exist. It is
    /// opened only if nothing stands against that. `kept` is the login that should stay usable, and `placement` is that of the
    /// tenant, if it has one.
    pub async fn inspect(
        &self,
        database: &str,
        login: &str,
        kept: Option<&str>,
        placement: Option<&Placement>,
    ) -> Result<Option<(FoundDatabase, Vec<SchemaPart>)>> {
        let mut session = self.admin().await?;
        let tenant = placement.map(|placement| placement.tenant);
        let found = read_database(&mut session, database, login, kept, tenant).await?;
        session.release();
        let Some(mut found) = found else { return Ok(None) };
        if !found.can_be_opened() {
            return Ok(Some((found, Vec::new())));
        }
        let connect_as = ConnectAs::Admin(database);
        let mut session =
            self.inner.sessions.single(&connect_as, "connect to the database in spec.adopt").await?;
        let read = async {
            let content = read_content(&mut session, kept).await?;
            Ok((content, read_parts(&mut session).await?))
        };
        let result: Result<_> = read.await;
        session.close_and_wait().await;
        let (content, parts) = result?;
        found.content = Some(content);
        Ok(Some((found, parts)))
    }

    /// What the template of these modules has, when only the given versions of them are applied, and with all of them. What
    /// tools make is left out: a tool finds what it made in the database.
    pub async fn created_by(
        &self,
        modules: &ModuleSet,
        baseline: &[ModuleVersion],
    ) -> Result<(Vec<SchemaPart>, Vec<SchemaPart>)> {
        let modules = &modules.of_files();
        let recorded = match modules.applied(&ledger_of(modules, baseline)) {
            Some(set) if !baseline.is_empty() => self.template_structure(&set).await?.to_vec(),
            _ => Vec::new(),
        };
        Ok((recorded, self.template_structure(modules).await?.to_vec()))
    }

    /// Which tenant the ownership comment of a database names, seen from one tenant; none if there is no such database.
    pub async fn ownership_of_database(&self, placement: &Placement) -> Result<Option<Ownership>> {
        let facts = self.observe(placement).await?;
        Ok(facts.database.map(|database| database.ownership))
    }

    /// Makes the database the tenant's: its owner, its comment, and who may connect; then ends every session there.
    pub async fn claim_database(&self, placement: &Placement, found: &FoundDatabase) -> Result<()> {
        let database = Ident::database(placement)?;
        let _one = self.lock_tenant(placement.tenant).await;
        let mut session = self.admin().await?;
        let options = session.has_grant_options();
        let result = claim(&mut session, placement, &database, found, options).await;
        if let Err(error) = result {
            // The transaction is rolled back with its session.
            session.close().await;
            return Err(error);
        }
        for _ in 0..ROUNDS {
            if end_sessions(&mut session, &database).await?.ended == 0 {
                session.release();
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::SessionsInTheWay {
            database: database.to_string(),
            count: 1,
            who: "sessions that do not end".to_owned(),
        })
    }

    /// Hands every object in a claimed database to Tenantry's roles, and prepares it for migrations. The files of the
    /// `baseline` are recorded as applied.
    pub async fn transfer_database(
        &self,
        placement: &Placement,
        modules: &ModuleSet,
        baseline: &[ModuleVersion],
    ) -> Result<()> {
        let connect_as = ConnectAs::Admin(placement.database.as_str());
        let mut session =
            self.inner.sessions.single(&connect_as, "connect to take the database over").await?;
        session.learn_pid().await;
        let result = transfer(&mut session).await;
        session.close_and_wait().await;
        result?;
        let mut migrator = self.open_migrator_session(placement, "connect to prepare the database").await?;
        let result = bootstrap(&mut migrator.session, modules, baseline).await;
        self.close_unchecked(migrator, result).await
    }

    /// Gives the database the ownership comment of any tenant's: from now on it is dropped with the tenant.
    pub async fn finish_takeover(&self, placement: &Placement) -> Result<()> {
        let _one = self.lock_tenant(placement.tenant).await;
        match self.observe(placement).await?.database {
            Some(found) if found.ownership.is_ours() && !found.is_adopting => Ok(()),
            Some(found) if found.ownership.is_ours() => {
                let comment = ownership::database(placement.tenant, "unknown");
                let script = Script::of(
                    "COMMENT ON DATABASE {} IS {}",
                    &[&Ident::database(placement)?, &Literal::new(&comment)?],
                );
                self.run("write the ownership comment of the database", &script).await
            }
            Some(found) => Err(Error::Conflict {
                kind: "database",
                name: placement.database.clone(),
                detail: found.ownership.describe(),
            }),
            None => Err(Error::DatabaseMissing(placement.database.clone())),
        }
    }
}

/// The files of these versions, and of the internal module, as a ledger has them.
fn ledger_of(modules: &ModuleSet, baseline: &[ModuleVersion]) -> Vec<(String, i32, Vec<u8>)> {
    let internal = modules.modules().iter().take(1).flat_map(|module| files(module, module.target()));
    internal
        .chain(recorded_files(modules, baseline))
        .map(|(module, file)| (module.name.to_string(), file.version, file.checksum()))
        .collect()
}

fn recorded_files<'a>(
    modules: &'a ModuleSet,
    baseline: &'a [ModuleVersion],
) -> impl Iterator<Item = (&'a Module, &'a Migration)> {
    baseline.iter().flat_map(|known| {
        let module = modules.modules().iter().find(|module| module.name == known.name);
        module.into_iter().flat_map(|module| files(module, known.version))
    })
}

fn files(module: &Module, version: i32) -> impl Iterator<Item = (&Module, &Migration)> {
    module.migrations.iter().filter(move |file| file.version <= version).map(move |file| (module, file))
}

/// Makes `tenantry_admin` a member of a role, for this transaction.
pub(super) fn borrow(script: &mut Script, role: &Ident, options_known: bool) {
    let options = Keyword(if options_known { "WITH INHERIT TRUE, SET TRUE" } else { "" });
    script.add("GRANT {} TO {} {}", &[role, &ADMIN, &options]);
}

async fn claim(
    session: &mut Session,
    placement: &Placement,
    database: &Ident,
    found: &FoundDatabase,
    options_known: bool,
) -> Result<()> {
    let mut transaction = session.begin().await.map_err(Error::sql(CLAIM))?;
    let owner = Ident::new(&found.owner.name)?;
    let mut first = Script::new();
    if found.owner.reach == Reach::Grantable {
        borrow(&mut first, &owner, options_known);
    }
    // Locks the row of the database: another claim fails now, and finds this one's comment when it is tried again.
    first.add("ALTER DATABASE {} CONNECTION LIMIT {}", &[database, &Number(found.connection_limit)]);
    if let Some(login) = &found.login {
        first.add(
            "ALTER ROLE {} CONNECTION LIMIT {}",
            &[&Ident::new(&login.name)?, &Number(login.connection_limit)],
        );
    }
    execute(&mut transaction, &first).await?;
    if let Some(login) = &found.login {
        claim_login(&mut transaction, placement, login).await?;
    }
    // What was granted since the report goes too: from now on, a GRANT of another session waits, and then fails.
    let query = "\
        SELECT d.oid::bigint, shobj_description(d.oid, 'pg_database'), ARRAY(
            SELECT DISTINCT r.rolname::text
            FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a JOIN pg_roles AS r ON r.oid = a.grantee
            WHERE a.grantee <> d.datdba)
        FROM pg_database AS d WHERE d.datname = $1";
    let query = sqlx::query_as::<_, (i64, Option<String>, Vec<String>)>(query)
        .bind(database.as_str())
        .fetch_optional(&mut *transaction);
    let (oid, comment, grantees) = with_timeout(STATEMENT_LIMIT, CLAIM, query)
        .await?
        .ok_or_else(|| Error::DatabaseMissing(database.to_string()))?;
    let marked = ownership::of(comment.as_deref(), placement.tenant);
    if oid != found.oid || matches!(marked, Ownership::OtherTenant(_)) {
        return Err(Error::Conflict {
            kind: "database",
            name: database.to_string(),
            detail: marked.describe(),
        });
    }
    let mut rest = Script::of("ALTER DATABASE {} OWNER TO {}", &[database, &DBA])
        .then(
            "COMMENT ON DATABASE {} IS {}",
            &[database, &Literal::new(&ownership::adopting(placement.tenant))?],
        )
        .then("ALTER DATABASE {} CONNECTION LIMIT -1", &[database])
        .then("REVOKE ALL ON DATABASE {} FROM PUBLIC CASCADE", &[database]);
    for grantee in &grantees {
        rest.add("REVOKE ALL ON DATABASE {} FROM {} CASCADE", &[database, &Ident::new(grantee)?]);
    }
    // Its rights as the owner became those of the new one.
    if found.owner.reach != Reach::Ours {
        rest.add("REVOKE ALL ON DATABASE {} FROM {} CASCADE", &[database, &owner]);
    }
    if found.owner.reach == Reach::Grantable {
        rest.add("REVOKE {} FROM {}", &[&owner, &ADMIN]);
    }
    execute(&mut transaction, &rest).await?;
    transaction.commit().await.map_err(Error::sql(CLAIM))
}

/// Makes the login that stays usable the tenant's, by its comment. Its row is locked. What it may do follows with the access
/// level; until then it cannot connect.
async fn claim_login(
    transaction: &mut sqlx::PgConnection,
    placement: &Placement,
    found: &FoundLogin,
) -> Result<()> {
    let query = "SELECT oid::bigint, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1";
    let query =
        sqlx::query_as::<_, (i64, Option<String>)>(query).bind(&found.name).fetch_optional(&mut *transaction);
    let now = with_timeout(STATEMENT_LIMIT, CLAIM, query).await?;
    if now.as_ref() != Some(&(found.oid, found.comment.clone())) {
        let comment = now.as_ref().and_then(|(_, comment)| comment.as_deref());
        return Err(Error::Conflict {
            kind: "role",
            name: found.name.clone(),
            detail: format!(
                "it should be kept, and has changed since the report: {}",
                ownership::of(comment, placement.tenant).describe()
            ),
        });
    }
    let mark = Script::of(
        "COMMENT ON ROLE {} IS {}",
        &[&Ident::new(&found.name)?, &Literal::new(&ownership::kept_login(placement.tenant))?],
    );
    execute(transaction, &mark).await
}

async fn execute(transaction: &mut sqlx::PgConnection, script: &Script) -> Result<()> {
    let query = sqlx::raw_sql(script.sql()).execute(transaction);
    with_timeout(STATEMENT_LIMIT, CLAIM, query).await.map(drop)
}

/// Hands over what is not Tenantry's yet: the schemas first, since the new owner of an object needs CREATE there.
async fn transfer(session: &mut Session) -> Result<()> {
    let options_known = session.has_grant_options();
    let content = read_content(session, None).await?;
    let is_schema = |object: &&FoundObject| object.kind == "schema";
    let schemas: Vec<&FoundObject> = content.objects.iter().filter(is_schema).collect();
    let others: Vec<&FoundObject> = content.objects.iter().filter(|object| !is_schema(object)).collect();
    for batch in schemas.chunks(BATCH) {
        let mut script = owner_script(&content, batch, options_known)?;
        script.add("SET LOCAL ROLE {}", &[&DBA]);
        for schema in batch {
            open_schema(&mut script, &Quoted::by_postgres(&schema.identity));
        }
        run_on(session, "take the schemas over", &script).await?;
    }
    let mut own = Script::of("SET LOCAL ROLE {}", &[&DBA]);
    for name in ["public", "tenantry"] {
        own.add("CREATE SCHEMA IF NOT EXISTS {}", &[&Ident::new(name)?]);
        open_schema(&mut own, &Quoted::by_postgres(name));
    }
    run_on(session, "create the schema tenantry", &own).await?;
    for batch in others.chunks(BATCH) {
        run_on(session, "take the objects over", &owner_script(&content, batch, options_known)?).await?;
    }
    Ok(())
}

fn open_schema(script: &mut Script, schema: &Quoted<'_>) {
    let [rw, shrink, ro] = &GROUPS;
    script.add("REVOKE ALL ON SCHEMA {} FROM PUBLIC", &[schema]);
    script.add("GRANT USAGE, CREATE ON SCHEMA {} TO {}", &[schema, &OWNER]);
    script.add("GRANT USAGE ON SCHEMA {} TO {}, {}, {}", &[schema, rw, shrink, ro]);
}

/// The statements that hand objects to their new owners, as a member of the old and the new ones.
fn owner_script(content: &DatabaseContent, objects: &[&FoundObject], options_known: bool) -> Result<Script> {
    let mut changes = Script::new();
    let mut owners: Vec<&FoundRole> = Vec::new();
    for object in objects {
        let owner = content.owners.iter().find(|role| role.name == object.owner);
        let Some(owner) = owner.filter(|role| role.reach != Reach::Ours) else { continue };
        let Some(keyword) = alter_keyword(&object.kind) else { continue };
        let identity = Quoted::by_postgres(&object.identity);
        changes.add(
            "ALTER {} {} OWNER TO {}",
            &[&Keyword(keyword), &identity, &Ident::new(new_owner(&object.kind))?],
        );
        if owner.reach == Reach::Grantable && !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    if changes.is_empty() {
        return Ok(changes);
    }
    let mut script = Script::new();
    for owner in &owners {
        borrow(&mut script, &Ident::new(&owner.name)?, options_known);
    }
    borrow(&mut script, &OWNER, options_known);
    script.append(changes);
    script.add("REVOKE {} FROM {}", &[&OWNER, &ADMIN]);
    for owner in &owners {
        script.add("REVOKE {} FROM {}", &[&Ident::new(&owner.name)?, &ADMIN]);
    }
    Ok(script)
}

/// Creates the ledger, with the files of the baseline, unless it exists.
async fn bootstrap(session: &mut Session, modules: &ModuleSet, baseline: &[ModuleVersion]) -> Result<()> {
    const DOING: &str = "create the migration ledger";
    let mut transaction = session.begin().await.map_err(Error::sql(DOING))?;
    let exists = sqlx::query_scalar::<_, bool>("SELECT to_regclass('tenantry.migrations') IS NOT NULL");
    if exists.fetch_one(&mut *transaction).await.map_err(Error::sql(DOING))? {
        return Ok(());
    }
    sqlx::raw_sql(BOOTSTRAP).execute(&mut *transaction).await.map_err(Error::sql(DOING))?;
    for (module, file) in recorded_files(modules, baseline) {
        sqlx::query(
            "INSERT INTO tenantry.migrations (module, version, file, checksum) VALUES ($1, $2, $3, $4)",
        )
        .bind(module.name.as_ref())
        .bind(file.version)
        .bind(file.file.as_ref())
        .bind(file.checksum())
        .execute(&mut *transaction)
        .await
        .map_err(Error::sql(DOING))?;
    }
    transaction.commit().await.map_err(Error::sql(DOING))
}
