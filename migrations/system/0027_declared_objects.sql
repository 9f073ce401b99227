-- What each plan, module and server declared when its changes were recorded last, so that each change becomes one row of the
-- activity log. Such rows have no tenant: `details` has the kind and the name.
CREATE TABLE declared_objects (
    uid         text  PRIMARY KEY,
    kind        text  NOT NULL,
    name        text  NOT NULL,
    declaration jsonb NOT NULL
);

-- Reads the history of one object: SELECT … FROM object_activity WHERE kind = 'TenantPlan' AND name = 'starter'.
CREATE VIEW object_activity AS
SELECT details ->> 'kind' AS kind, details ->> 'name' AS name, id, at, action, actor, reason, details, archived
FROM (
    SELECT id, at, action, actor, reason, details, false AS archived FROM activity WHERE tenant_id IS NULL
    UNION ALL
    SELECT id, at, action, actor, reason, details, true FROM activity_archive WHERE tenant_id IS NULL) AS a
WHERE details ? 'kind';
