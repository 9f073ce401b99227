//! What code of the owner (a module, a migration tool, a former owner) plants: functions with the owner's rights that are
//! called without a right to call them, and members of extensions. At ReadOnly, the tenant's login writes with none of them.

use tenantry::domain::{access::AccessLevel, rights::RightsReport};

use super::Stage;
use crate::servers::SERVERS;

/// As `tenantry_owner`. `step` writes with its owner's rights, and no other role may call it.
const PLANT: &str = "\
SET ROLE tenantry_owner;
CREATE TABLE public.things (a text);
CREATE FUNCTION public.note(what text) RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN INSERT INTO public.things VALUES (what); RETURN 1; END $$;
CREATE FUNCTION public.step(state text, what text) RETURNS text LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS
    $$ BEGIN PERFORM public.note(what); RETURN what; END $$;
CREATE FUNCTION public.plain(state text, what text) RETURNS text LANGUAGE sql AS 'SELECT what';
CREATE FUNCTION public.finish(what text) RETURNS text LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS
    $$ BEGIN PERFORM public.note(what); RETURN what; END $$;
CREATE FUNCTION public.finish_ordered(state text, what text) RETURNS text LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS
    $$ BEGIN PERFORM public.note(what); RETURN what; END $$;
CREATE AGGREGATE public.by_step(text) (SFUNC = public.step, STYPE = text, INITCOND = '');
CREATE AGGREGATE public.by_finish(text) (SFUNC = public.plain, STYPE = text, FINALFUNC = public.finish);
CREATE AGGREGATE public.by_order(text ORDER BY text) (SFUNC = public.plain, STYPE = text, FINALFUNC = public.finish_ordered);
CREATE AGGREGATE public.by_window(text) (SFUNC = public.plain, STYPE = text,
    MSFUNC = public.step, MINVFUNC = public.plain, MSTYPE = text, INITCOND = '', MINITCOND = '');
CREATE AGGREGATE public.harmless(text) (SFUNC = public.plain, STYPE = text);
CREATE OPERATOR public.<<<>>> (FUNCTION = public.step, LEFTARG = text, RIGHTARG = text);
CREATE TYPE public.box AS (what text);
CREATE FUNCTION public.unbox(b public.box) RETURNS int LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS
    $$ BEGIN RETURN public.note(b.what); END $$;
CREATE CAST (public.box AS int) WITH FUNCTION public.unbox(public.box);
CREATE DOMAIN public.noted AS text CHECK (public.finish(VALUE) IS NOT NULL);
CREATE VIEW public.seen AS SELECT public.finish('view');
CREATE EXTENSION citext;
CREATE FUNCTION public.as_member(what text) RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN RETURN public.note(what); END $$;
CREATE TABLE public.member_table (a int);
CREATE SEQUENCE public.member_sequence;
GRANT ALL ON TABLE public.member_table, public.member_sequence TO PUBLIC;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA public TO PUBLIC;
REVOKE EXECUTE ON FUNCTION public.step, public.finish, public.finish_ordered, public.note, public.unbox FROM PUBLIC;
ALTER EXTENSION citext ADD FUNCTION public.as_member(text);
ALTER EXTENSION citext ADD TABLE public.member_table;
ALTER EXTENSION citext ADD SEQUENCE public.member_sequence";

/// What works until the rights are settled.
const OPEN: [&str; 7] = [
    "SELECT public.by_step('x')",
    "SELECT public.by_finish('x')",
    "SELECT public.by_order('x') WITHIN GROUP (ORDER BY 'y'::text)",
    "SELECT public.by_window(a) OVER (ORDER BY a ROWS 1 PRECEDING) FROM (VALUES ('x'), ('y')) AS v (a)",
    "SELECT public.as_member('x')",
    "INSERT INTO public.member_table VALUES (1)",
    "SELECT nextval('public.member_sequence')",
];

/// What PostgreSQL refuses to who may not call the function.
const CHECKED: [&str; 4] = [
    "SELECT 'a' OPERATOR(public.<<<>>>) 'b'",
    "SELECT ROW('x')::public.box::int",
    "SELECT 'x'::public.noted",
    "SELECT * FROM public.seen",
];

#[tokio::test]
async fn nothing_that_the_owner_planted_writes_at_read_only() {
    for postgres in &*SERVERS {
        let stage = Stage::new(postgres, "tenant_fixc_hidden").await;
        let database = &stage.tenant.placement.database;
        let allow = format!("GRANT CREATE ON DATABASE {database} TO tenantry_owner");
        stage.superuser(&allow).await;
        stage.superuser(PLANT).await;
        stage.superuser(&allow.replace("GRANT", "REVOKE").replace(" TO ", " FROM ")).await;
        stage.server.set_access(&stage.tenant.placement, AccessLevel::ReadOnly).await.unwrap();
        for sql in OPEN {
            assert!(stage.may(sql).await, "{sql}");
        }
        for sql in CHECKED {
            assert!(!stage.may(sql).await, "{sql}");
        }
        let report = stage.settle().await;
        assert!(report.left.is_empty(), "{report:?}");
        for name in ["public.by_order(text, text)", "public.as_member(what text)", "public.member_table"] {
            assert!(report.repaired.iter().any(|phrase| phrase.contains(name)), "{name}: {report:?}");
        }
        // It does what its caller may do.
        assert!(!report.repaired.iter().any(|phrase| phrase.contains("harmless")), "{report:?}");
        for sql in OPEN.iter().chain(&CHECKED) {
            assert!(!stage.may(sql).await, "{sql}");
        }
        assert!(stage.may("SELECT public.harmless('x')").await);
        assert!(stage.may("SELECT 'x'::public.citext").await, "the extension's own functions");
        assert_eq!(stage.settle().await, RightsReport::default());
        // With full access, the application calls what the module made for it.
        stage.server.set_access(&stage.tenant.placement, AccessLevel::ReadWrite).await.unwrap();
        for sql in OPEN.iter().chain(&CHECKED) {
            assert!(stage.may(sql).await, "{sql}");
        }
    }
}
