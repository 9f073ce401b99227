//! Roles, databases, files.

use super::{
    Action,
    What::{Alone, Effect, Login, Password, Replication, Statements},
    can, without_control,
};

pub const ACTIONS: &[Action] = &[
    // Its login and other roles.
    can("change its password", Statements(&["ALTER ROLE CURRENT_USER PASSWORD 'another'"])),
    can("change its own settings", Statements(&["ALTER ROLE CURRENT_USER SET idle_session_timeout = '1ms'"])),
    can(
        "make every login of its own fail (local_preload_libraries)",
        Statements(&["ALTER ROLE CURRENT_USER SET local_preload_libraries = 'nothing'"]),
    ),
    can(
        "change its own settings for another database, its neighbour's",
        Statements(&["ALTER ROLE CURRENT_USER IN DATABASE {neighbour_database} SET work_mem = '1MB'"]),
    ),
    can(
        "store a megabyte in its own settings",
        Statements(&["DO $$ BEGIN EXECUTE format('ALTER ROLE CURRENT_USER SET search_path = %L', \
            (SELECT string_agg(md5(i::text), ',') FROM generate_series(1, 32768) i)); END $$"]),
    ),
    can("rename its own login", Statements(&["ALTER ROLE {login} RENAME TO other"])),
    can("change its connection limit", Statements(&["ALTER ROLE {login} CONNECTION LIMIT -1"])),
    can("change when its password expires", Statements(&["ALTER ROLE {login} VALID UNTIL 'infinity'"])),
    can("become CREATEDB, CREATEROLE", Statements(&["ALTER ROLE {login} CREATEDB CREATEROLE"])),
    can(
        "become SUPERUSER, REPLICATION, BYPASSRLS",
        Statements(&["ALTER ROLE {login} SUPERUSER REPLICATION BYPASSRLS"]),
    ),
    can("take LOGIN from itself", Statements(&["ALTER ROLE {login} NOLOGIN"])),
    can("change the comment of its login", Statements(&["COMMENT ON ROLE {login} IS 'x'"])),
    can("SET ROLE to the group of its level", Statements(&["SET LOCAL ROLE {group}"])),
    can("SET ROLE to the group of another level", Statements(&["SET LOCAL ROLE {other_group}"])),
    can("SET ROLE to the owner of the tables", Statements(&["SET LOCAL ROLE tenantry_owner"])),
    can("SET ROLE to the owner of the databases", Statements(&["SET LOCAL ROLE tenantry_dba"])),
    can("SET ROLE to the migrator", Statements(&["SET LOCAL ROLE tenantry_migrator"])),
    can("SET ROLE to tenantry_admin", Statements(&["SET LOCAL ROLE tenantry_admin"])),
    can("SET ROLE to its neighbour", Statements(&["SET LOCAL ROLE {neighbour}"])),
    can(
        "SET SESSION AUTHORIZATION to its neighbour",
        Statements(&["SET LOCAL SESSION AUTHORIZATION {neighbour}"]),
    ),
    can(
        "change the settings and the password of its group, after SET ROLE",
        Statements(&[
            "SET LOCAL ROLE {group}",
            "ALTER ROLE {group} SET work_mem = '1MB'",
            "ALTER ROLE {group} PASSWORD 'x'",
        ]),
    ),
    can("join another group", Statements(&["GRANT {other_group} TO {login}"])),
    can("grant its group to its neighbour", Statements(&["GRANT {group} TO {neighbour}"])),
    can("grant its own login to its neighbour", Statements(&["GRANT {login} TO {neighbour}"])),
    can(
        "give up its rights (DROP OWNED BY itself)",
        Effect(&["DROP OWNED BY {login}"], "NOT has_database_privilege('{login}', '{database}', 'CONNECT')"),
    ),
    can(
        "take its group's rights (DROP OWNED BY its group)",
        Effect(&["DROP OWNED BY {group}"], "NOT has_table_privilege('{group}', 'users', 'SELECT')"),
    ),
    can("give what it owns to its neighbour", Statements(&["REASSIGN OWNED BY {login} TO {neighbour}"])),
    can("create a role", Statements(&["CREATE ROLE tried"])),
    can("change its neighbour's password", Statements(&["ALTER ROLE {neighbour} PASSWORD 'x'"])),
    can("change its neighbour's settings", Statements(&["ALTER ROLE {neighbour} SET work_mem = '1MB'"])),
    can(
        "change every role's settings",
        Statements(&["ALTER ROLE ALL IN DATABASE {neighbour_database} SET work_mem = '1MB'"]),
    ),
    without_control("log in as its neighbour, with its own password", Password),
    // Databases.
    can("connect to its own database", Login("{database}", "")),
    can("connect to its neighbour's database", Login("{neighbour_database}", "")),
    can("connect to the database postgres", Login("postgres", "")),
    can("connect to the database template1", Login("template1", "")),
    without_control("connect to the database template0", Login("template0", "")),
    can("connect to the registry", Login("tenantry_system", "")),
    without_control("connect to a template", Login("{template}", "")),
    without_control("open a replication connection", Replication),
    without_control(
        "open a session that starts late (post_auth_delay)",
        Login("{database}", "&options=-c%20post_auth_delay%3D1"),
    ),
    can(
        "let PUBLIC connect to its database",
        Effect(
            &["GRANT CONNECT ON DATABASE {database} TO PUBLIC"],
            "has_database_privilege('{neighbour}', '{database}', 'CONNECT')",
        ),
    ),
    can(
        "let PUBLIC create in the database postgres",
        Effect(
            &["GRANT CREATE ON DATABASE postgres TO PUBLIC"],
            "has_database_privilege('{neighbour}', 'postgres', 'CREATE')",
        ),
    ),
    can(
        "let PUBLIC connect to its neighbour's database",
        Statements(&["GRANT CONNECT ON DATABASE {neighbour_database} TO PUBLIC"]),
    ),
    can("change a setting of its database", Statements(&["ALTER DATABASE {database} SET work_mem = '1MB'"])),
    can(
        "change the connection limit of its database",
        Statements(&["ALTER DATABASE {database} CONNECTION LIMIT 1"]),
    ),
    can("change the comment of its database", Statements(&["COMMENT ON DATABASE {database} IS 'x'"])),
    without_control("rename its database", Statements(&["ALTER DATABASE {database} RENAME TO other"])),
    without_control("drop its database", Alone(&["DROP DATABASE {database}"], &[])),
    without_control(
        "rename its neighbour's database",
        Statements(&["ALTER DATABASE {neighbour_database} RENAME TO other"]),
    ),
    can(
        "change a setting of its neighbour's database",
        Statements(&["ALTER DATABASE {neighbour_database} SET work_mem = '1MB'"]),
    ),
    without_control("drop its neighbour's database", Alone(&["DROP DATABASE {neighbour_database}"], &[])),
    without_control("create a database", Alone(&["CREATE DATABASE tried"], &[])),
    without_control("create a tablespace", Alone(&["CREATE TABLESPACE tried LOCATION '/nowhere'"], &[])),
    // Files, programs, large objects.
    can("run a program (COPY … PROGRAM)", Statements(&["COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'"])),
    can("read a file with COPY", Statements(&["COPY users (email) FROM '/dev/null'"])),
    can("write a file with COPY", Statements(&["COPY (SELECT 1) TO '/dev/null'"])),
    can("read a file with pg_read_file", Statements(&["SELECT pg_read_file('PG_VERSION')"])),
    can("list a folder", Statements(&["SELECT pg_ls_dir('base')"])),
    can("load a library", Statements(&["LOAD 'plpgsql'"])),
    can("create a large object", Statements(&["SELECT lo_create(0)"])),
    can("create a large object with content", Statements(&["SELECT lo_from_bytea(0, 'x')"])),
    can("import a large object from a file", Statements(&["SELECT lo_import('PG_VERSION')"])),
    can("export a large object to a file", Statements(&["SELECT lo_export(4711, '/dev/null')"])),
    can("read an administrator's large object", Statements(&["SELECT lo_get(4711)"])),
    can("write an administrator's large object", Statements(&["SELECT lo_put(4711, 0, 'x')"])),
    can("delete an administrator's large object", Statements(&["SELECT lo_unlink(4711)"])),
];
