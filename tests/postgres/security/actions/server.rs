//! What a tenant sees, and what it does to the server.

use super::{
    Action,
    What::{Alone, Effect, Statements},
    can, without_control,
};

pub const ACTIONS: &[Action] = &[
    // What it sees.
    can(
        "see the names of all databases and roles",
        Effect(
            &[],
            "count(*) = 2 FROM (SELECT FROM pg_database WHERE datname = '{neighbour_database}' \
             UNION ALL SELECT FROM pg_roles WHERE rolname = '{neighbour}') names",
        ),
    ),
    can(
        "see the tenant ids of its neighbours (comments)",
        Effect(&[], "shobj_description('{neighbour}'::regrole, 'pg_authid') LIKE 'tenantry:tenant:%'"),
    ),
    can(
        "see the access levels of its neighbours (memberships)",
        Effect(
            &[],
            "EXISTS (SELECT FROM pg_auth_members WHERE member = '{neighbour}'::regrole \
             AND roleid = 'tenantry_rw'::regrole)",
        ),
    ),
    can(
        "see the settings of its neighbours' logins",
        Effect(&[], "EXISTS (SELECT FROM pg_db_role_setting WHERE setrole = '{neighbour}'::regrole)"),
    ),
    can(
        "see which sessions its neighbours have",
        Effect(
            &["SELECT {neighbours_session}"],
            "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {neighbours_session} AND usename = '{neighbour}' \
             AND datname IS NOT NULL AND application_name IS NOT NULL)",
        ),
    ),
    can(
        "see the operator's sessions and its name",
        Effect(
            &["SELECT {operators_session}"],
            "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {operators_session} \
             AND application_name = 'of-the-operator')",
        ),
    ),
    can(
        "see what its neighbours' sessions run, and from where",
        Effect(
            &["SELECT {neighbours_session}"],
            "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {neighbours_session} \
             AND (query LIKE '%LOCK%' OR client_addr IS NOT NULL OR state IS NOT NULL))",
        ),
    ),
    can(
        "see its neighbours' locks",
        Effect(
            &["SELECT {neighbours_session}"],
            "EXISTS (SELECT FROM pg_locks WHERE pid = {neighbours_session} AND mode = 'AccessShareLock')",
        ),
    ),
    can(
        "see the names of its neighbours' prepared transactions",
        Effect(&[], "EXISTS (SELECT FROM pg_prepared_xacts WHERE gid = '{prepared}')"),
    ),
    can(
        "see how much its neighbours read and write (pg_stat_database)",
        Effect(&[], "xact_commit > 0 FROM pg_stat_database WHERE datname = '{neighbour_database}'"),
    ),
    can("see the size of its own database", Statements(&["SELECT pg_database_size('{database}')"])),
    can(
        "see the size of its neighbour's database",
        Statements(&["SELECT pg_database_size('{neighbour_database}')"]),
    ),
    can("see the size of all databases together", Statements(&["SELECT pg_tablespace_size('pg_default')"])),
    can("see the version and most settings", Statements(&["SHOW server_version", "SHOW max_connections"])),
    can("see where the server's files are", Statements(&["SHOW data_directory"])),
    can("see who may log in from where (pg_hba.conf)", Statements(&["SELECT * FROM pg_hba_file_rules"])),
    can("read passwords' verifiers (pg_authid)", Statements(&["SELECT rolpassword FROM pg_authid"])),
    can("read large objects' pages", Statements(&["SELECT * FROM pg_largeobject"])),
    can("read statistics of columns it cannot read", Statements(&["SELECT * FROM pg_statistic"])),
    // Sessions, transactions, the server.
    without_control("end its own sessions", Statements(&["SELECT pg_terminate_backend({own_session})"])),
    can("end its neighbour's sessions", Statements(&["SELECT pg_terminate_backend({neighbours_session})"])),
    can("end the operator's sessions", Statements(&["SELECT pg_terminate_backend({operators_session})"])),
    can("cancel its neighbour's statements", Statements(&["SELECT pg_cancel_backend({neighbours_session})"])),
    can("cancel the operator's statements", Statements(&["SELECT pg_cancel_backend({operators_session})"])),
    can("call its session by the operator's name", Statements(&["SET application_name = 'of-the-operator'"])),
    can(
        "remove time limits of its sessions",
        Statements(&["SET statement_timeout = 0", "SET idle_in_transaction_session_timeout = 0"]),
    ),
    can(
        "write in spite of default_transaction_read_only",
        Statements(&[
            "SET LOCAL transaction_read_only = off",
            "INSERT INTO users (email) VALUES ('b@tried.example')",
        ]),
    ),
    can("change its search_path", Statements(&["SET search_path = pg_catalog"])),
    can("use more memory (work_mem)", Statements(&["SET work_mem = '1GB'"])),
    can("remove the limit of temporary files (temp_file_limit)", Statements(&["SET temp_file_limit = -1"])),
    can("change what the server logs", Statements(&["SET log_statement = 'none'"])),
    can("write into the server's log", Statements(&["DO $$ BEGIN RAISE LOG 'tried'; END $$"])),
    can("LISTEN and NOTIFY", Statements(&["LISTEN tried", "NOTIFY tried, 'x'"])),
    can(
        "take advisory locks, any number",
        Statements(&["SELECT pg_advisory_xact_lock(i) FROM generate_series(1, 100) i"]),
    ),
    can("use up transaction ids", Statements(&["SELECT pg_current_xact_id()"])),
    can("keep a snapshot, and so dead rows", Statements(&["SELECT pg_export_snapshot()"])),
    can(
        "write to the WAL without a table (pg_logical_emit_message)",
        Statements(&["SELECT pg_logical_emit_message(false, 'tried', repeat('x', 1000))"]),
    ),
    can(
        "prepare a transaction, where the server allows any",
        Alone(
            &["BEGIN", "SELECT pg_current_xact_id()", "PREPARE TRANSACTION 'tried'"],
            &["ROLLBACK PREPARED 'tried'"],
        ),
    ),
    without_control(
        "finish its neighbour's prepared transaction",
        Alone(&["ROLLBACK PREPARED '{prepared}'"], &[]),
    ),
    can(
        "create a replication slot",
        Alone(
            &["SELECT pg_create_physical_replication_slot('tried_' || pg_backend_pid(), false, true)"],
            &[],
        ),
    ),
    without_control(
        "create a slot of logical decoding",
        Alone(&["SELECT pg_create_logical_replication_slot('tried', 'pgoutput', true)"], &[]),
    ),
    can("create an origin of replication", Statements(&["SELECT pg_replication_origin_create('tried')"])),
    can("reset statistics", Statements(&["SELECT pg_stat_reset_single_table_counters('roles'::regclass)"])),
    can("CHECKPOINT", Alone(&["CHECKPOINT"], &[])),
    can("change the server's settings (ALTER SYSTEM)", Alone(&["ALTER SYSTEM RESET log_statement"], &[])),
    can("reload the server's settings", Statements(&["SELECT pg_reload_conf()"])),
    can("switch to another WAL file", Statements(&["SELECT pg_switch_wal()"])),
];
