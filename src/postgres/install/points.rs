//! The points of the setup: what an administrator does on a server, each as SQL that tests whether it is
//! done already. The program runs these statements, and `--print-sql` prints the same ones.

use super::large_objects::{REVOKE_WRITERS, WRITERS_ARE_CLOSED};
use crate::postgres::{
    error::{Error, Result},
    identifier::{ADMIN, Ident, Keyword, Literal, Part, Script, ScriptLiteral},
    session::connect::{GRANT_OPTIONS_SINCE, MAINTENANCE_DATABASE},
    tenant::credentials::{SecretText, scram_verifier},
};

/// The quotes of a block. A name that contains them is refused.
const TAG: &str = "$tenantry$";

/// What to set up.
pub struct SetupOptions {
    /// The operator's login.
    pub operator: String,
    /// Its password. Only a verifier is sent to the server.
    pub password: SecretText,
    /// The registry's database, if it should be on this server.
    pub system_database: Option<String>,
}

/// Something that should be so on the server.
pub(super) struct Point {
    /// The result, for people.
    pub what: String,
    /// Whether the operator refuses a server without it.
    pub required: bool,
    /// What leads there, in this order. A failed step does not keep the next ones from being run.
    pub steps: Vec<Step>,
}

/// One statement of a point.
pub(super) struct Step {
    /// The server version from which on it applies, as `server_version_num`; 0 is every version.
    pub since: u32,
    /// A query whose result is true when there is nothing to do.
    pub is_right: Option<Script>,
    /// The statement.
    pub statement: Statement,
}

/// How a statement is run.
pub(super) enum Statement {
    /// A block that tests `is_right` itself.
    Block(Script),
    /// A statement that cannot be in a block, and fails when its object exists.
    CreateDatabase(Script),
}

impl Step {
    fn new(is_right: Script, act: &Script) -> Self {
        Self::block(
            0,
            is_right,
            "DO $tenantry$\nBEGIN\n    IF ({}) IS NOT TRUE THEN\n        {};\n    END IF;\nEND\n$tenantry$",
            act,
        )
    }

    /// A step from 16 on. Its syntax is unknown to older versions, which read a block as a whole.
    fn since_16(is_right: Script, act: &Script) -> Self {
        let block = "DO $tenantry$\nBEGIN\n    IF current_setting('server_version_num')::int >= 160000 THEN\n        \
                     IF ({}) IS NOT TRUE THEN\n            {};\n        END IF;\n    END IF;\nEND\n$tenantry$";
        Self::block(GRANT_OPTIONS_SINCE, is_right, block, &Script::of("EXECUTE {}", &[&ScriptLiteral(act)]))
    }

    fn block(since: u32, is_right: Script, block: &'static str, act: &Script) -> Self {
        let statement = Statement::Block(Script::of(block, &[&is_right, act]));
        Self { since, is_right: Some(is_right), statement }
    }

    /// Whether it applies to a server of this version.
    pub fn applies(&self, version: u32) -> bool {
        self.since <= version
    }
}

/// The points in the database `postgres`.
pub(super) fn in_postgres(options: &SetupOptions) -> Result<Vec<Point>> {
    let operator = Ident::new(&options.operator)?;
    let mut points = vec![
        role(&ADMIN, "role tenantry_admin, NOLOGIN CREATEDB CREATEROLE", false),
        // It needs CREATEROLE itself: from 16 on, COMMENT ON ROLE tenantry_admin requires it.
        role(&operator, &format!("login {operator}, NOSUPERUSER CREATEDB CREATEROLE"), true),
        password(&operator, options)?,
        membership(&operator),
    ];
    points.extend(predefined_roles()?);
    points.push(Point {
        what: "SET of temp_file_limit for tenantry_admin: a tenant's temporary files can be limited"
            .to_owned(),
        required: false,
        steps: vec![Step::new(
            Script::of(
                "SELECT has_parameter_privilege({}, 'temp_file_limit', 'SET')",
                &[&Literal::from(&ADMIN)],
            ),
            &Script::of("GRANT SET ON PARAMETER temp_file_limit TO {}", &[&ADMIN]),
        )],
    });
    if let Some(name) = &options.system_database {
        points.push(system_database(&Ident::new(name)?));
    }
    points.extend(maintenance_databases()?);
    for text in [&options.operator].into_iter().chain(&options.system_database) {
        if text.contains(TAG) {
            return Err(Error::Name(text.clone()));
        }
    }
    Ok(points)
}

/// The points in `template1`: function rights and schemas are copied into every database that is created from it.
pub(super) fn in_template1() -> Vec<Point> {
    let closed = Script::of(WRITERS_ARE_CLOSED, &[]);
    vec![
        Point {
            what: "EXECUTE on the large-object writers revoked from PUBLIC in template1".to_owned(),
            required: false,
            steps: vec![Step::new(closed, &Script::of(REVOKE_WRITERS, &[]))],
        },
        Point {
            what: "in template1, schema public is the database owner's, and PUBLIC may not create in it"
                .to_owned(),
            required: false,
            steps: vec![
                Step::new(
                    Script::of(SCHEMA_IS_OWNED, &[]),
                    &Script::of("ALTER SCHEMA public OWNER TO pg_database_owner", &[]),
                ),
                Step::new(
                    Script::of(SCHEMA_IS_CLOSED, &[]),
                    &Script::of("REVOKE CREATE ON SCHEMA public FROM PUBLIC", &[]),
                ),
            ],
        },
    ]
}

fn role(name: &Ident, what: &str, login: bool) -> Point {
    let about = Literal::from(name);
    let may = Keyword(if login { "LOGIN" } else { "NOLOGIN" });
    let is = Keyword(if login { "rolcanlogin" } else { "NOT rolcanlogin" });
    let query = |template| Script::of(template, &[&about]);
    Point {
        what: what.to_owned(),
        required: true,
        steps: vec![
            Step::new(
                query("SELECT true FROM pg_roles WHERE rolname = {}"),
                &Script::of("CREATE ROLE {} {} CREATEDB CREATEROLE", &[name, &may]),
            ),
            // A step of its own: NOSUPERUSER is accepted only from a superuser, even where it changes nothing.
            Step::new(
                query("SELECT NOT rolsuper FROM pg_roles WHERE rolname = {}"),
                &Script::of("ALTER ROLE {} NOSUPERUSER", &[name]),
            ),
            Step::new(
                Script::of(
                    "SELECT {} AND rolcreatedb AND rolcreaterole AND rolinherit FROM pg_roles WHERE rolname = {}",
                    &[&is, &about],
                ),
                &Script::of("ALTER ROLE {} {} CREATEDB CREATEROLE INHERIT", &[name, &may]),
            ),
        ],
    }
}

fn password(operator: &Ident, options: &SetupOptions) -> Result<Point> {
    let verifier = scram_verifier(&options.password);
    let statement = Script::of("ALTER ROLE {} PASSWORD {}", &[operator, &Literal::new(&verifier)?]);
    Ok(Point {
        what: format!("password of {operator}"),
        required: true,
        steps: vec![Step { since: 0, is_right: None, statement: Statement::Block(statement) }],
    })
}

/// With the ADMIN option, which no role has on itself, the login can write the installation's id into the comment of
/// `tenantry_admin`, and add its successor. From 16 on, a membership has two more options, in one row per grantor.
fn membership(operator: &Ident) -> Point {
    let about: &[&dyn Part] = &[&Literal::from(operator)];
    Point {
        what: format!("{operator} is a member of tenantry_admin, with ADMIN OPTION"),
        required: true,
        steps: vec![
            Step::new(
                Script::of(
                    "SELECT coalesce(bool_or(m.admin_option), false) FROM pg_auth_members m \
                     JOIN pg_roles r ON r.oid = m.member \
                     WHERE r.rolname = {} AND m.roleid = 'tenantry_admin'::regrole",
                    about,
                ),
                &Script::of("GRANT {} TO {} WITH ADMIN OPTION", &[&ADMIN, operator]),
            ),
            Step::since_16(
                Script::of(
                    "SELECT coalesce(bool_or(m.inherit_option) AND bool_or(m.set_option), false) \
                     FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member \
                     WHERE r.rolname = {} AND m.roleid = 'tenantry_admin'::regrole",
                    about,
                ),
                &Script::of("GRANT {} TO {} WITH INHERIT TRUE, SET TRUE", &[&ADMIN, operator]),
            ),
        ],
    }
}

fn predefined_roles() -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for (name, new, why) in [
        ("pg_signal_backend", false, "tenants' sessions can be ended"),
        ("pg_read_all_stats", false, "the end of tenants' sessions can be proven"),
        (
            "pg_use_reserved_connections",
            true,
            "the operator can connect when tenants use all other connections",
        ),
    ] {
        let role = Ident::new(name)?;
        let is_member = Script::of(
            "SELECT pg_has_role({}, {}, 'USAGE')",
            &[&Literal::from(&ADMIN), &Literal::from(&role)],
        );
        let grant = Script::of("GRANT {} TO {}", &[&role, &ADMIN]);
        let step = if new { Step::since_16(is_member, &grant) } else { Step::new(is_member, &grant) };
        let what = format!("{name} for tenantry_admin: {why}");
        points.push(Point { what, required: false, steps: vec![step] });
    }
    Ok(points)
}

/// A role that is not a superuser must be a member of the owner that it names, for the time of the statements. The session
/// remembers whether it became one here, so that an older membership stays.
fn system_database(name: &Ident) -> Point {
    let about = Literal::from(name);
    let options = Script::of("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE", &[&ADMIN]);
    let join = Script::of(
        "IF current_setting('server_version_num')::int >= 160000 THEN\n            EXECUTE {};\n        \
         ELSE\n            GRANT {} TO CURRENT_USER;\n        END IF;\n        \
         PERFORM set_config('tenantry.joined', 'true', false)",
        &[&ScriptLiteral(&options), &ADMIN],
    );
    let leave = Script::of(
        "REVOKE {} FROM CURRENT_USER;\n        PERFORM set_config('tenantry.joined', '', false)",
        &[&ADMIN],
    );
    Point {
        what: format!("database {name} for the registry, owned by tenantry_admin, closed to PUBLIC"),
        required: true,
        steps: vec![
            Step::new(Script::of(MAY_CREATE_SYSTEM_DATABASE, &[&about]), &join),
            Step {
                since: 0,
                is_right: Some(Script::of("SELECT true FROM pg_database WHERE datname = {}", &[&about])),
                // Not from template1, which may have another encoding, or sessions.
                statement: Statement::CreateDatabase(Script::of(
                    "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'",
                    &[name, &ADMIN],
                )),
            },
            Step::new(
                Script::of(
                    "SELECT pg_get_userbyid(datdba) = 'tenantry_admin' FROM pg_database WHERE datname = {}",
                    &[&about],
                ),
                &Script::of("ALTER DATABASE {} OWNER TO {}", &[name, &ADMIN]),
            ),
            Step::new(
                Script::of(IS_CLOSED_TO_PUBLIC, &[&about]),
                &Script::of("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[name]),
            ),
            Step::new(
                Script::of("SELECT coalesce(current_setting('tenantry.joined', true), '') = ''", &[]),
                &leave,
            ),
        ],
    }
}

/// Only the operator connects to the maintenance database `postgres`, and no role to `template1`: a session there blocks
/// every CREATE DATABASE from it.
fn maintenance_databases() -> Result<Vec<Point>> {
    let postgres = Ident::new(MAINTENANCE_DATABASE)?;
    let mut points = vec![Point {
        what: "CONNECT on postgres for tenantry_admin".to_owned(),
        required: false,
        steps: vec![Step::new(
            Script::of(IS_OPEN_TO_ADMIN, &[&Literal::from(&postgres)]),
            &Script::of("GRANT CONNECT ON DATABASE {} TO {}", &[&postgres, &ADMIN]),
        )],
    }];
    // All rights: with any right of PUBLIC on a database, a tenant's GRANT there is a mere warning, and locks its row.
    for name in [postgres, Ident::new("template1")?, Ident::new("template0")?] {
        points.push(Point {
            what: format!("all rights on {name} revoked from PUBLIC"),
            required: false,
            steps: vec![Step::new(
                Script::of(IS_CLOSED_TO_PUBLIC, &[&Literal::from(&name)]),
                &Script::of("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[&name]),
            )],
        });
    }
    Ok(points)
}

/// The administrator can name `tenantry_admin` as an owner, or the registry's database is right already.
const MAY_CREATE_SYSTEM_DATABASE: &str = "\
SELECT EXISTS (
    SELECT FROM pg_database AS d WHERE d.datname = {} AND pg_get_userbyid(d.datdba) = 'tenantry_admin'
        AND NOT EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a WHERE a.grantee = 0))
    OR pg_has_role('tenantry_admin', 'USAGE')
        AND CASE WHEN current_setting('server_version_num')::int >= 160000
            THEN pg_has_role('tenantry_admin', 'SET') ELSE true END";
const IS_CLOSED_TO_PUBLIC: &str = "\
SELECT NOT EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a WHERE a.grantee = 0)
FROM pg_database AS d WHERE d.datname = {}";
const IS_OPEN_TO_ADMIN: &str = "\
SELECT EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
    WHERE a.grantee = 'tenantry_admin'::regrole AND a.privilege_type = 'CONNECT')
FROM pg_database AS d WHERE d.datname = {}";

/// On a server that was upgraded from an older version, a superuser may own the schema and PUBLIC may have CREATE. Without
/// the schema there is nothing to do.
const SCHEMA_IS_OWNED: &str = "\
SELECT NOT EXISTS (
    SELECT FROM pg_namespace WHERE nspname = 'public' AND pg_get_userbyid(nspowner) <> 'pg_database_owner')";
const SCHEMA_IS_CLOSED: &str = "\
SELECT NOT EXISTS (
    SELECT FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
    WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE')";
