-- What the tenant's plan gives it, what it uses of that, and how a module makes the database hold to it.
-- A database of the release before has all of this, from the module core.
--
-- The operator alone writes `limits` and `plan`; the meters alone write `counters`. They are apart on purpose: a
-- transaction of the tenant's that adds a row holds its counter until it ends, and must not hold a change of its
-- limits off.

-- One that is not here does not apply.
CREATE TABLE IF NOT EXISTS tenantry.limits (
    name    text   PRIMARY KEY,
    maximum bigint CHECK (maximum >= 0)
);

COMMENT ON COLUMN tenantry.limits.maximum IS 'NULL: unlimited';

-- How much is used of each metered limit. A row is written by each statement that adds or takes something, so that a
-- page has room for its next versions, which then need no new entry in the index.
CREATE TABLE IF NOT EXISTS tenantry.counters (
    name text   PRIMARY KEY,
    used bigint NOT NULL
) WITH (fillfactor = 10);

-- Which rows are counted: those of `metered` that `counted` is true for.
CREATE TABLE IF NOT EXISTS tenantry.meters (
    name    text     NOT NULL REFERENCES tenantry.counters,
    metered regclass NOT NULL,
    counted text     NOT NULL,
    PRIMARY KEY (name, metered)
);

-- One row, always: also what a transaction looks at to see that its view of the limits is the present one.
CREATE TABLE IF NOT EXISTS tenantry.plan (
    singleton  boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    name       text,
    features   text[]      NOT NULL DEFAULT '{}',
    sla        text,
    updated_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO tenantry.plan DEFAULT VALUES ON CONFLICT DO NOTHING;

-- To replace a view waits for everybody who reads it: one that is there stays.
DO $view$
BEGIN
    IF to_regclass('tenantry.entitlements') IS NULL THEN
        CREATE VIEW tenantry.entitlements AS
        SELECT p.name AS plan,
               p.features,
               p.sla,
               (SELECT coalesce(jsonb_object_agg(l.name, coalesce(to_jsonb(l.maximum), '"unlimited"')), '{}')
                FROM tenantry.limits l) AS limits,
               (SELECT coalesce(jsonb_object_agg(c.name, c.used), '{}') FROM tenantry.counters c) AS usage
        FROM tenantry.plan p;

        COMMENT ON VIEW tenantry.entitlements IS
            'For the application, one row: its plan, features and limits (a number or "unlimited"), and what is used of those that are metered';
    END IF;
END
$view$;

-- A table, and its partitions or children: a statement fires the triggers of the one that it names, and of no other.
CREATE OR REPLACE FUNCTION tenantry.family(ancestor regclass) RETURNS SETOF regclass LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE family AS (
        SELECT ancestor::oid AS oid
        UNION
        SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid)
    SELECT f.oid::regclass FROM family f
$$;

-- The rows themselves. No counter is better than this; it is just slow.
CREATE OR REPLACE FUNCTION tenantry.count_rows(limit_name text) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meter tenantry.meters;
    part  bigint;
    total bigint := 0;
BEGIN
    FOR meter IN SELECT * FROM tenantry.meters m WHERE m.name = limit_name LOOP
        EXECUTE format(E'SELECT count(*) FROM %s WHERE (%s\n)', meter.metered, meter.counted) INTO part;
        total := total + part;
    END LOOP;
    RETURN total;
END
$$;

-- Nothing that is counted changes while the counter is held. (What waits for it is not committed, and so not seen.)
CREATE OR REPLACE FUNCTION tenantry.recount(limit_name text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total bigint;
BEGIN
    PERFORM FROM tenantry.counters c WHERE c.name = limit_name FOR NO KEY UPDATE;
    total := tenantry.count_rows(limit_name);
    UPDATE tenantry.counters c SET used = total WHERE c.name = limit_name AND c.used <> total;
END
$$;

-- Adds to a counter, for a statement on `changed`, and refuses what is over the limit. Writers of one limit wait here
-- for each other until they commit: that is what makes the number right. Called by the meters' triggers alone, which
-- pin the search_path.
CREATE OR REPLACE FUNCTION tenantry.add_usage(limit_name text, added bigint, changed regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    -- Where this transaction left its own version of the counter. The versions before that stay in the index until it
    -- ends: to look each up again would take longer with each of its statements. A tenant may write to this
    -- setting: another place finds no row of that name, or the same one, and what is no place is an error of its own.
    setting  text := 'tenantry.counter_' || limit_name;
    place    text := current_setting(setting, true);
    now_used bigint;
    most     bigint;
BEGIN
    IF added = 0 THEN
        RETURN;
    END IF;
    IF place <> '' THEN
        UPDATE tenantry.counters c SET used = c.used + added WHERE c.ctid = place::tid AND c.name = limit_name
        RETURNING c.used, c.ctid INTO now_used, place;
    END IF;
    IF now_used IS NULL THEN
        UPDATE tenantry.counters c SET used = c.used + added WHERE c.name = limit_name
        RETURNING c.used, c.ctid INTO now_used, place;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'limit "%" has no counter: call tenantry.meter', limit_name;
        END IF;
    END IF;
    PERFORM set_config(setting, place, true);
    -- Less is always fine, also while it is still too much.
    IF added < 0 THEN
        RETURN;
    END IF;
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        -- The snapshot may be older than the limits: then they have been written since, and to lock what was written
        -- since is a serialization failure. The lock is given back at once, or it would hold off the next change.
        BEGIN
            PERFORM FROM tenantry.plan FOR NO KEY UPDATE;
            RAISE SQLSTATE 'TN000';
        EXCEPTION WHEN SQLSTATE 'TN000' THEN
            NULL;
        END;
    END IF;
    SELECT l.maximum INTO most FROM tenantry.limits l WHERE l.name = limit_name;
    -- Without a limit the comparison is NULL, and the dearer question must not be asked.
    IF coalesce(now_used > most, false) AND NOT tenantry.is_within(limit_name, most) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TNLIM',
            MESSAGE = format('limit "%s" reached: %s of %s in use, %s more refused',
                limit_name, now_used - added, most, added),
            HINT = format('Remove some, or move to a plan that allows more %s.', limit_name),
            CONSTRAINT = limit_name,
            SCHEMA = (SELECT n.nspname FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = changed),
            TABLE = (SELECT r.relname FROM pg_class r WHERE r.oid = changed);
    END IF;
END
$$;

-- One statement may add rows and take others (MERGE, or WITH … AS (DELETE …) INSERT …), and what it takes may be
-- counted after what it adds. Where this transaction took any, the rows say whether they are too many.
CREATE OR REPLACE FUNCTION tenantry.is_within(limit_name text, most bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM tenantry.meters m, tenantry.family(m.metered) AS part
        WHERE m.name = limit_name
            AND pg_stat_get_xact_tuples_deleted(part) + pg_stat_get_xact_tuples_updated(part) > 0)
        AND tenantry.count_rows(limit_name) <= most;
END
$$;

-- For a module's migration: from now on the rows of `metered` count towards the limit, those alone for which `counted`
-- is true where it is given, an SQL condition on the row itself such as `archived_at IS NULL`. Several tables may count
-- towards one limit, and one table towards several. Called again, it counts anew: to be done after what the triggers do
-- not see, such as a partition that is made, attached, detached or dropped.
CREATE OR REPLACE FUNCTION tenantry.meter(limit_name text, metered regclass, counted text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    condition text := coalesce(counted, 'true');
    prefix    text := 'tenantry_' || limit_name || '_';
    handler   text := 'metered_' || left(encode(sha256(convert_to(condition, 'UTF8')), 'hex'), 16);
    other     regclass;
    stale     record;
BEGIN
    IF limit_name !~ '^[a-z][A-Za-z0-9]*$' OR length(limit_name) > 40 THEN
        RAISE EXCEPTION 'the name of a metered limit has at most 40 letters and digits and starts with a lower-case letter, not %',
            quote_literal(limit_name);
    END IF;
    FOR stale IN
        WITH gone AS (
            DELETE FROM tenantry.meters m WHERE NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = m.metered)
            RETURNING m.name)
        SELECT DISTINCT g.name FROM gone g ORDER BY g.name
    LOOP
        PERFORM tenantry.recount(stale.name);
    END LOOP;
    SELECT m.metered INTO other FROM tenantry.meters m
    WHERE m.name = limit_name AND m.metered <> meter.metered
        AND EXISTS (SELECT tenantry.family(m.metered) INTERSECT SELECT tenantry.family(meter.metered));
    IF FOUND THEN
        RAISE EXCEPTION 'rows of % would count twice towards limit "%": % counts already', metered, limit_name, other;
    END IF;
    INSERT INTO tenantry.counters AS c (name, used) VALUES (limit_name, 0) ON CONFLICT DO NOTHING;
    INSERT INTO tenantry.meters AS m (name, metered, counted) VALUES (limit_name, meter.metered, condition)
    ON CONFLICT ON CONSTRAINT meters_pkey DO UPDATE SET counted = excluded.counted;
    -- Who writes to one of them now is waited for, and who comes later waits, so that nobody is missed.
    FOR other IN SELECT m.metered FROM tenantry.meters m WHERE m.name = limit_name ORDER BY m.metered::oid LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', other);
    END LOOP;

    -- The condition is in the text, so that the plan is made once for each session.
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION tenantry.%1$I() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        #variable_conflict use_column
        BEGIN
            CASE TG_OP
            WHEN 'INSERT' THEN
                PERFORM tenantry.add_usage(TG_ARGV[0],
                    (SELECT count(*) FROM tenantry_new WHERE (%2$s
                    )), TG_RELID);
            WHEN 'DELETE' THEN
                PERFORM tenantry.add_usage(TG_ARGV[0],
                    -(SELECT count(*) FROM tenantry_old WHERE (%2$s
                    )), TG_RELID);
            WHEN 'UPDATE' THEN
                PERFORM tenantry.add_usage(TG_ARGV[0],
                    (SELECT count(*) FROM tenantry_new WHERE (%2$s
                    )) - (SELECT count(*) FROM tenantry_old WHERE (%2$s
                    )), TG_RELID);
            ELSE
                PERFORM tenantry.recount(TG_ARGV[0]);
            END CASE;
            RETURN NULL;
        END
        $body$
        $function$, handler, condition);

    -- Of a condition that was given before, or of a partition that is none any more.
    FOR stale IN
        SELECT t.tgname, t.tgrelid::regclass AS metered FROM pg_trigger t
        WHERE starts_with(t.tgname, prefix) AND NOT EXISTS (
            SELECT FROM tenantry.meters m, tenantry.family(m.metered) AS part
            WHERE m.name = limit_name AND part = t.tgrelid AND (m.counted <> 'true' OR t.tgname <> prefix || 'update'))
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', stale.tgname, stale.metered);
    END LOOP;
    FOR other IN SELECT tenantry.family(meter.metered) LOOP
        EXECUTE format($triggers$
            CREATE OR REPLACE TRIGGER %1$I AFTER INSERT ON %4$s REFERENCING NEW TABLE AS tenantry_new
                FOR EACH STATEMENT EXECUTE FUNCTION tenantry.%5$I(%6$L);
            CREATE OR REPLACE TRIGGER %2$I AFTER DELETE ON %4$s REFERENCING OLD TABLE AS tenantry_old
                FOR EACH STATEMENT EXECUTE FUNCTION tenantry.%5$I(%6$L);
            CREATE OR REPLACE TRIGGER %3$I AFTER TRUNCATE ON %4$s
                FOR EACH STATEMENT EXECUTE FUNCTION tenantry.%5$I(%6$L);
            $triggers$,
            prefix || 'insert', prefix || 'delete', prefix || 'truncate', other, handler, limit_name);
        -- Without a condition an update moves nothing.
        IF condition <> 'true' THEN
            EXECUTE format($trigger$
                CREATE OR REPLACE TRIGGER %1$I AFTER UPDATE ON %2$s
                    REFERENCING OLD TABLE AS tenantry_old NEW TABLE AS tenantry_new
                    FOR EACH STATEMENT EXECUTE FUNCTION tenantry.%3$I(%4$L)
                $trigger$,
                prefix || 'update', other, handler, limit_name);
        END IF;
    END LOOP;
    PERFORM tenantry.recount(limit_name);
END
$$;
