-- What became of the names in `spec.purgeModules`: a name that was answered does not count again, so that one which was refused
-- does not become due by a later change of a plan.

ALTER TABLE tenants ADD COLUMN module_purges jsonb NOT NULL DEFAULT '{}';
