//! The ways, one per line: the statements before the suspension, and those after it.

use futures::{FutureExt, future::BoxFuture};
use tenantry::domain::access::AccessLevel;

use super::{
    moves,
    stage::{Actor, Outcome},
};

/// The part after the suspension. A way that completes it has evaded the suspension.
pub type Finish = BoxFuture<'static, Outcome>;
/// The part before it.
pub type Begin = fn(Actor) -> BoxFuture<'static, Outcome<Finish>>;

/// A way. Each is shown to work without a suspension, so that the test can fail.
#[derive(Clone, Copy)]
pub enum Way {
    /// Both parts in the same session.
    SameSession(&'static str, &'static str),
    /// The first part in a session that stays open, the second in a new session.
    NewSession(&'static str, &'static str),
    /// The same, for statements that ShrinkOnly allows.
    Shrinks(&'static str, &'static str),
    /// A statement that a tenant may run at no level, and an administrator may: tried in an earlier session and in a new
    /// one.
    Never(&'static str),
    /// A way that needs more than statements.
    Own(Begin),
    /// The same, for what a tenant may do at no level.
    Forbidden(Begin),
}

use Way::{Forbidden, Never, NewSession, Own, SameSession, Shrinks};

/// The versions on which a way exists.
pub type Majors = &'static [u16];
const ALL: Majors = &[15, 18];
/// From 16 on, a membership can be without SET, as those of tenants are.
const BEFORE_16: Majors = &[15];
const SINCE_16: Majors = &[18];

/// The large object 4711 is an administrator's; for the functions 131072 means "to write".
pub const WAYS: &[(&str, Majors, Way)] = &[
    // Sessions that stay open.
    ("a write that waits for its COMMIT", ALL, SameSession("BEGIN; {write}", "COMMIT")),
    (
        "a savepoint to go back to",
        ALL,
        SameSession("BEGIN; SAVEPOINT s; {write}", "ROLLBACK TO s; {write}; COMMIT"),
    ),
    ("an idle session", ALL, SameSession("SELECT 1", "{write}")),
    ("a session idle in a transaction", ALL, SameSession("BEGIN", "{write}; COMMIT")),
    (
        "a statement prepared in an open transaction",
        ALL,
        SameSession("BEGIN; PREPARE w AS {write}", "EXECUTE w; COMMIT"),
    ),
    (
        "a statement prepared in an idle session",
        ALL,
        SameSession("PREPARE w AS {write}; EXECUTE w", "EXECUTE w"),
    ),
    ("a cursor WITH HOLD", ALL, SameSession("DECLARE c CURSOR WITH HOLD FOR SELECT * FROM users", "FETCH c")),
    (
        "a cursor in an open transaction",
        ALL,
        SameSession("BEGIN; DECLARE c CURSOR FOR SELECT * FROM users", "FETCH c"),
    ),
    (
        "a cursor FOR UPDATE in an open transaction",
        ALL,
        SameSession(
            "{write}; COMMIT; BEGIN; DECLARE c CURSOR FOR SELECT * FROM users FOR UPDATE; FETCH c",
            "UPDATE users SET name = 'x' WHERE CURRENT OF c; COMMIT",
        ),
    ),
    ("SET ROLE to the group before it", BEFORE_16, SameSession("SET ROLE tenantry_rw", "{write}")),
    ("SET ROLE to itself before it", ALL, SameSession("SET ROLE {login}", "{write}")),
    (
        "SET SESSION AUTHORIZATION to itself before it",
        ALL,
        SameSession("SET SESSION AUTHORIZATION {login}", "{write}"),
    ),
    (
        "an advisory lock",
        ALL,
        SameSession("SELECT pg_advisory_lock(1)", "SELECT 1 / pg_advisory_unlock(1)::int"),
    ),
    ("a LISTEN", ALL, SameSession("LISTEN way", "SELECT 1 / count(*)::int FROM pg_listening_channels()")),
    ("a COPY FROM STDIN under way", ALL, Own(|actor| moves::copy_in(actor).boxed())),
    ("a COPY TO STDOUT that is not read", ALL, Own(|actor| moves::copy_out(actor).boxed())),
    ("a DO block that catches being cancelled", ALL, Own(|actor| moves::stubborn(actor).boxed())),
    // New sessions.
    ("an INSERT", ALL, NewSession("", "{write}")),
    ("an UPDATE", ALL, NewSession("{write}", "UPDATE users SET name = name || 'x'")),
    ("a DELETE", ALL, Shrinks("{write}", "DELETE FROM users")),
    (
        "a MERGE",
        ALL,
        NewSession(
            "{write}",
            "MERGE INTO users u USING roles r ON false WHEN NOT MATCHED THEN INSERT (email) VALUES (gen_random_uuid() || '@m.example')",
        ),
    ),
    (
        "a WITH that deletes and writes",
        ALL,
        NewSession(
            "{write}",
            "WITH d AS (DELETE FROM users RETURNING name) INSERT INTO users (email, name) SELECT gen_random_uuid() || '@d.example', name FROM d",
        ),
    ),
    ("a WITH that writes", ALL, NewSession("", "WITH w AS ({write} RETURNING 1) SELECT * FROM w")),
    ("EXPLAIN ANALYZE of a write", ALL, NewSession("", "EXPLAIN ANALYZE {write}")),
    ("a DO block", ALL, NewSession("", "DO $$ BEGIN {write}; END $$")),
    (
        "a default_transaction_read_only of its own",
        ALL,
        NewSession("", "SET default_transaction_read_only = off; {write}"),
    ),
    (
        "SET transaction_read_only",
        ALL,
        NewSession("", "BEGIN; SET transaction_read_only = off; {write}; COMMIT"),
    ),
    ("BEGIN READ WRITE", ALL, NewSession("", "BEGIN READ WRITE; {write}; COMMIT")),
    (
        "ALTER ROLE of itself, SET",
        ALL,
        NewSession("ALTER ROLE {login} SET default_transaction_read_only = off", "{write}"),
    ),
    (
        "ALTER ROLE of itself, IN DATABASE",
        ALL,
        NewSession(
            "ALTER ROLE {login} IN DATABASE {database} SET default_transaction_read_only = off",
            "{write}",
        ),
    ),
    (
        "ALTER ROLE of itself, SET role",
        BEFORE_16,
        NewSession("SET ROLE none; ALTER ROLE {login} SET role = tenantry_rw", "{write}"),
    ),
    ("SET ROLE to the group after it", BEFORE_16, NewSession("", "SET ROLE tenantry_rw; {write}")),
    (
        "GRANT of its rights to PUBLIC",
        ALL,
        NewSession("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC", "{write}"),
    ),
    ("DROP OWNED BY its group", ALL, NewSession("DROP OWNED BY tenantry_rw", "{write}")),
    (
        "default privileges of its own",
        ALL,
        NewSession("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC", "{write}"),
    ),
    ("SELECT FOR UPDATE", ALL, NewSession("{write}", "SELECT * FROM users FOR UPDATE")),
    ("SELECT FOR KEY SHARE", ALL, NewSession("{write}", "SELECT * FROM users FOR KEY SHARE")),
    ("LOCK TABLE", ALL, Shrinks("", "BEGIN; LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE; COMMIT")),
    ("nextval", ALL, NewSession("", "SELECT nextval('activity_log_id_seq')")),
    ("setval", ALL, NewSession("", "SELECT setval('activity_log_id_seq', 9999)")),
    ("a column's sequence", ALL, NewSession("", "INSERT INTO activity_log (action) VALUES ('x')")),
    ("a SECURITY DEFINER function of a module", ALL, NewSession("", "SELECT write_for_me()")),
    (
        "a prepared transaction",
        ALL,
        NewSession(
            "BEGIN; {write}; PREPARE TRANSACTION '{database}''s \\'",
            "COMMIT PREPARED '{database}''s \\'",
        ),
    ),
    (
        "a prepared transaction of the group",
        BEFORE_16,
        SameSession(
            "SET ROLE tenantry_rw; BEGIN; {write}; PREPARE TRANSACTION '{database} rw'",
            "COMMIT PREPARED '{database} rw'",
        ),
    ),
    ("an exported snapshot", ALL, Own(|actor| moves::snapshot(actor).boxed())),
    ("a password of its own", ALL, Own(|actor| moves::password(actor).boxed())),
    ("a login half way through its password", ALL, Own(|actor| moves::half_way_in(actor).boxed())),
    ("many logins at the same time", ALL, Own(|actor| moves::race(actor).boxed())),
    ("another tenant's login that has its role", ALL, Own(|actor| moves::lent(actor).boxed())),
    ("another tenant's login that knocks all the time", ALL, Own(|actor| moves::knocking(actor).boxed())),
    // What a tenant may never do.
    ("SET ROLE to the group", SINCE_16, Never("SET ROLE tenantry_rw")),
    ("SET ROLE to the owner", ALL, Never("SET ROLE tenantry_owner")),
    ("SET SESSION AUTHORIZATION", ALL, Never("SET SESSION AUTHORIZATION tenantry_owner")),
    ("session_replication_role", ALL, Never("SET session_replication_role = replica")),
    ("ALTER ROLE of itself, LOGIN", ALL, Never("ALTER ROLE {login} LOGIN")),
    ("ALTER ROLE of itself, CONNECTION LIMIT", ALL, Never("ALTER ROLE {login} CONNECTION LIMIT 100")),
    ("ALTER ROLE of itself, VALID UNTIL", ALL, Never("ALTER ROLE {login} VALID UNTIL 'infinity'")),
    ("ALTER ROLE of itself, CREATEROLE", ALL, Never("ALTER ROLE {login} CREATEROLE")),
    ("ALTER ROLE of itself, SUPERUSER", ALL, Never("ALTER ROLE {login} SUPERUSER")),
    ("ALTER ROLE of another, SET", ALL, Never("ALTER ROLE {other} SET role = 'none'")),
    ("CREATE ROLE", ALL, Never("CREATE ROLE {database}_twin LOGIN IN ROLE tenantry_rw")),
    ("COMMENT ON ROLE itself", ALL, Never("COMMENT ON ROLE {login} IS 'other'")),
    ("COMMENT ON DATABASE", ALL, Never("COMMENT ON DATABASE {database} IS 'other'")),
    ("GRANT of the group to itself", ALL, Never("GRANT tenantry_rw TO {login}")),
    ("GRANT of the group to another tenant's login", ALL, Never("GRANT tenantry_rw TO {other}")),
    ("GRANT of itself to another tenant's login", ALL, Never("GRANT {login} TO {other}")),
    ("ALTER DATABASE, CONNECTION LIMIT", ALL, Never("ALTER DATABASE {database} CONNECTION LIMIT 100")),
    ("ALTER DATABASE, ALLOW_CONNECTIONS", ALL, Never("ALTER DATABASE {database} ALLOW_CONNECTIONS true")),
    ("ALTER DATABASE, SET", ALL, Never("ALTER DATABASE {database} SET default_transaction_read_only = off")),
    ("ALTER DATABASE, OWNER", ALL, Never("ALTER DATABASE {database} OWNER TO {login}")),
    ("lo_create", ALL, Never("SELECT lo_create(0)")),
    ("lo_creat", ALL, Never("SELECT lo_creat(131072)")),
    ("lo_from_bytea", ALL, Never("SELECT lo_from_bytea(0, 'x')")),
    ("lo_put", ALL, Never("SELECT lo_put(4711, 0, 'x')")),
    ("lowrite", ALL, Never("SELECT lowrite(lo_open(4711, 131072), 'x')")),
    ("lo_truncate", ALL, Never("SELECT lo_truncate(lo_open(4711, 131072), 0)")),
    ("lo_unlink", ALL, Never("SELECT lo_unlink(4711)")),
    ("TRUNCATE", ALL, Never("TRUNCATE users CASCADE")),
    ("CREATE TEMP TABLE", ALL, Never("CREATE TEMP TABLE t (a int)")),
    ("CREATE TEMP VIEW", ALL, Never("CREATE TEMP VIEW t AS SELECT 1 AS a")),
    ("CREATE TABLE", ALL, Never("CREATE TABLE t (a int)")),
    ("CREATE SCHEMA", ALL, Never("CREATE SCHEMA s")),
    ("CREATE VIEW", ALL, Never("CREATE VIEW public.v AS SELECT * FROM users")),
    ("CREATE RULE", ALL, Never("CREATE RULE r AS ON UPDATE TO users DO ALSO NOTHING")),
    (
        "CREATE TRIGGER",
        ALL,
        Never("CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION tenantry.touch()"),
    ),
    (
        "CREATE FUNCTION, SECURITY DEFINER",
        ALL,
        Never("CREATE FUNCTION public.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"),
    ),
    (
        "CREATE EVENT TRIGGER",
        ALL,
        Never("CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION public.on_ddl()"),
    ),
    ("CREATE EXTENSION dblink", ALL, Never("CREATE EXTENSION dblink")),
    ("CREATE EXTENSION postgres_fdw", ALL, Never("CREATE EXTENSION postgres_fdw")),
    ("CREATE PUBLICATION", ALL, Never("CREATE PUBLICATION p FOR TABLE users")),
    ("ALTER TABLE, DISABLE TRIGGER", ALL, Never("ALTER TABLE users DISABLE TRIGGER ALL")),
    (
        "default privileges of the owner",
        ALL,
        Never("ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner GRANT ALL ON TABLES TO PUBLIC"),
    ),
    ("COPY TO PROGRAM", ALL, Never("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'")),
    ("ending the operator's sessions", ALL, Forbidden(|actor| moves::end_the_operator(actor).boxed())),
    ("a replication connection", ALL, Forbidden(|actor| moves::replication(actor).boxed())),
];

impl Way {
    /// The number of such ways that can be tried at once on one tenant without affecting each other.
    pub fn at_a_time(self) -> usize {
        match self {
            // It locks the counter of users, for which the others would wait.
            SameSession(before, _) if before.starts_with("BEGIN") && before.ends_with("{write}") => 1,
            SameSession(..) | Never(_) | Forbidden(_) => 8,
            NewSession(..) | Shrinks(..) | Own(_) => 1,
        }
    }

    /// Whether a tenant may not do it at any level.
    pub fn is_forbidden(self) -> bool {
        matches!(self, Never(_) | Forbidden(_))
    }

    /// Whether it evades this level, and is not what the level allows.
    pub fn is_against(self, level: AccessLevel) -> bool {
        !(matches!(self, Shrinks(..)) && level == AccessLevel::ShrinkOnly)
    }

    /// Runs the part before the suspension.
    pub async fn begin(self, actor: Actor) -> Outcome<Finish> {
        let (before, after) = match self {
            Own(begin) | Forbidden(begin) => return begin(actor).await,
            SameSession(before, after) | NewSession(before, after) | Shrinks(before, after) => {
                (before, after)
            }
            Never(sql) => ("", sql),
        };
        let mut session = actor.session().await?;
        actor.run(&mut session, before).await?;
        Ok(async move {
            if !matches!(self, NewSession(..) | Shrinks(..)) {
                let kept = actor.run(&mut session, after).await;
                if kept.is_ok() || !matches!(self, Never(_)) {
                    return kept;
                }
            }
            actor.run(&mut actor.session().await?, after).await
        }
        .boxed())
    }
}
