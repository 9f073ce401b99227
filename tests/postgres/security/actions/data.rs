//! Rows, objects in the tenant's database, its limits.

use super::{
    Action,
    What::{AloneEffect, Effect, Statements},
    can, without_control,
};

pub const ACTIONS: &[Action] = &[
    // The application's tables and functions.
    can("read rows, also with COPY", Statements(&["SELECT * FROM users", "COPY users TO STDOUT"])),
    can("insert rows", Statements(&["INSERT INTO users (email) VALUES ('a@tried.example')"])),
    can("insert rows with COPY", Statements(&["COPY users (email) FROM STDIN"])),
    without_control(
        "insert more rows than a limit allows",
        Statements(&["INSERT INTO projects (name) VALUES ('x')"]),
    ),
    without_control(
        "insert more, after a change of the setting in which the counter keeps its place",
        Statements(&[
            "SET LOCAL tenantry.counter_projects = '(0,1)'",
            "INSERT INTO projects (name) VALUES ('x')",
        ]),
    ),
    can("update rows", Statements(&["UPDATE users SET name = 'x'"])),
    can("delete rows", Statements(&["DELETE FROM users"])),
    can("empty a table (TRUNCATE)", Statements(&["TRUNCATE users CASCADE"])),
    can("lock rows (SELECT … FOR UPDATE)", Statements(&["SELECT * FROM users FOR UPDATE"])),
    can(
        "lock a table against changes of its definition (ACCESS SHARE)",
        Statements(&["LOCK users IN ACCESS SHARE MODE"]),
    ),
    can(
        "lock a table against everything (ACCESS EXCLUSIVE)",
        Statements(&["LOCK users IN ACCESS EXCLUSIVE MODE"]),
    ),
    can("read a sequence", Statements(&["SELECT last_value FROM activity_log_id_seq"])),
    can("advance a sequence (nextval)", Statements(&["SELECT nextval('activity_log_id_seq')"])),
    can("set a sequence (setval)", Statements(&["SELECT setval('activity_log_id_seq', 1000)"])),
    can("call a function of a module, SECURITY DEFINER or not", Statements(&["SELECT of_a_module()"])),
    can("run a block of PL/pgSQL (DO)", Statements(&["DO $$ BEGIN PERFORM 1; END $$"])),
    can(
        "fill temporary files (sorts, cursors WITH HOLD)",
        Statements(&["DECLARE c CURSOR WITH HOLD FOR SELECT * FROM users", "COMMIT"]),
    ),
    // Objects in its database.
    can("create a table", Statements(&["CREATE TABLE public.t (a int)"])),
    can("create a temporary table", Statements(&["CREATE TEMP TABLE t (a int)"])),
    can("create a schema", Statements(&["CREATE SCHEMA s"])),
    can("create a view", Statements(&["CREATE VIEW public.v AS SELECT 1 AS a"])),
    can("create a sequence", Statements(&["CREATE SEQUENCE public.s"])),
    can("create a type", Statements(&["CREATE TYPE public.t AS ENUM ('a')"])),
    can(
        "create a function",
        Statements(&["CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"]),
    ),
    can("create an extension, trusted", Statements(&["CREATE EXTENSION pgcrypto"])),
    can("create an extension, other (dblink)", Statements(&["CREATE EXTENSION dblink"])),
    can("create an extension, other (postgres_fdw)", Statements(&["CREATE EXTENSION postgres_fdw"])),
    can("create a foreign data wrapper", Statements(&["CREATE FOREIGN DATA WRAPPER w"])),
    can("create an index", Statements(&["CREATE INDEX ON users (name)"])),
    can(
        "create a trigger",
        Statements(&[
            "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION tenantry.touch()",
        ]),
    ),
    can("create a rule", Statements(&["CREATE RULE r AS ON UPDATE TO users DO ALSO NOTHING"])),
    can("create a policy for rows", Statements(&["CREATE POLICY p ON users"])),
    can(
        "create an event trigger",
        Statements(&["CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION public.on_ddl()"]),
    ),
    can("create statistics", Statements(&["CREATE STATISTICS public.s ON name, email FROM users"])),
    can("create a publication", Statements(&["CREATE PUBLICATION p FOR TABLE users"])),
    can(
        "create a subscription",
        Statements(&["CREATE SUBSCRIPTION s CONNECTION 'dbname=x password=x' PUBLICATION p \
                      WITH (connect = false, slot_name = NONE)"]),
    ),
    can("add a column", Statements(&["ALTER TABLE users ADD COLUMN x int"])),
    can("drop a table", Statements(&["DROP TABLE activity_log"])),
    can("become the owner of a table", Statements(&["ALTER TABLE users OWNER TO {login}"])),
    can("change the comment of a table", Statements(&["COMMENT ON TABLE users IS 'x'"])),
    can(
        "grant its rights on a table",
        Effect(
            &["GRANT SELECT ON users TO {neighbour}"],
            "EXISTS (SELECT FROM pg_class, aclexplode(relacl) a WHERE oid = 'users'::regclass \
             AND a.grantee = '{neighbour}'::regrole)",
        ),
    ),
    can(
        "revoke the rights of its group",
        Effect(
            &["REVOKE ALL ON users FROM {group}"],
            "NOT has_table_privilege('{group}', 'users', 'SELECT')",
        ),
    ),
    can(
        "set default privileges of itself",
        Statements(&["ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC"]),
    ),
    can(
        "set default privileges of its group",
        Statements(&["ALTER DEFAULT PRIVILEGES FOR ROLE {group} GRANT ALL ON TABLES TO PUBLIC"]),
    ),
    can(
        "set default privileges of the owner of the tables",
        Statements(&["ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner GRANT ALL ON TABLES TO PUBLIC"]),
    ),
    can("VACUUM", AloneEffect(&["VACUUM users"], "pg_stat_get_vacuum_count('users'::regclass) > 0")),
    can("ANALYZE", AloneEffect(&["ANALYZE roles"], "pg_stat_get_analyze_count('roles'::regclass) > 0")),
    can("REINDEX", Statements(&["REINDEX TABLE users"])),
    can("CLUSTER", Statements(&["CLUSTER users USING users_pkey"])),
    // Limits and the schema tenantry.
    can(
        "read its plan, limits and usage",
        Statements(&[
            "SELECT * FROM tenantry.entitlements, tenantry.limits, tenantry.counters, tenantry.meters",
        ]),
    ),
    can("read which migrations were applied", Statements(&["SELECT * FROM tenantry.migrations"])),
    can("change a limit", Statements(&["UPDATE tenantry.limits SET maximum = NULL"])),
    can("change a counter", Statements(&["UPDATE tenantry.counters SET used = 0"])),
    can("lock the counters", Statements(&["LOCK tenantry.counters IN SHARE MODE"])),
    can("lock the row of its plan", Statements(&["SELECT * FROM tenantry.plan FOR SHARE"])),
    can("declare a meter", Statements(&["SELECT tenantry.meter('users', 'public.users', 'false')"])),
    can(
        "read its admins and settings, and what modules registered",
        Statements(&[
            "SELECT a.*, s.*, r.* FROM tenantry.admins a, tenantry.settings s, tenantry.registered_functions r",
        ]),
    ),
    can("redeem an admin's token", Statements(&["SELECT * FROM tenantry.redeem('guessed')"])),
    can("become an admin", Statements(&["INSERT INTO tenantry.admins (email) VALUES ('a@tried.example')"])),
    can("make a used token valid again", Statements(&["UPDATE tenantry.admins SET used_at = NULL"])),
    can("change a setting of the Tenant", Statements(&["UPDATE tenantry.settings SET value = '1'"])),
    can(
        "register a function for the admins",
        Statements(&["SELECT tenantry.on_admin('public.identity_seed_admin', true)"]),
    ),
    can("seed admins", Statements(&["SELECT tenantry.seed_admins('[]', false, false)"])),
    can("create an object in the schema", Statements(&["CREATE VIEW tenantry.v AS SELECT 1 AS a"])),
    can("disable the triggers of a table", Statements(&["ALTER TABLE users DISABLE TRIGGER USER"])),
    can(
        "disable the triggers of its session (session_replication_role)",
        Statements(&["SET session_replication_role = replica"]),
    ),
];
