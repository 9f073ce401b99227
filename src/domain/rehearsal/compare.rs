//! What a file changed, from the catalogs before and after it. Nothing is read from the SQL itself.

use super::{
    FindingClass, RehearsalFinding, RewrittenRelation, RightsChange,
    catalog::{CatalogObject, CatalogSnapshot, RowChange},
    narrowing::is_widening,
};
use crate::domain::{modules::INTERNAL, rights::RightsMismatch};

/// The owner of a module's objects.
const OWNER: &str = "tenantry_owner";
/// The roles that may have rights on a module's objects; which ones exactly, is compared elsewhere.
const KNOWN_GRANTEES: [&str; 5] =
    ["tenantry_owner", "tenantry_rw", "tenantry_shrink", "tenantry_ro", "PUBLIC"];
/// Tenantry's own table, which the first file without a transaction creates.
const PROGRESS: &str = "tenantry.migration_progress";

const ALLOW: &str = "if that is meant, set spec.allowDestructive: true on the TenantModule";

/// What the snapshots of a rehearsal are compared for.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The schema of the module.
    pub schema: &'a str,
    /// The database before the module: what is there is another module's, or Tenantry's.
    pub others: &'a CatalogSnapshot,
    /// The database with the files that were accepted before: tenants have it, with data.
    pub accepted: &'a CatalogSnapshot,
    /// Before the file.
    pub before: &'a CatalogSnapshot,
    /// After it.
    pub after: &'a CatalogSnapshot,
    /// What it did to the rows of tables that were there before the module's new files.
    pub rows: &'a [RowChange],
    /// The tables whose rows were not watched to the end: the file changed the triggers for it.
    pub unwatched: &'a [i64],
    /// Whether destructive changes are allowed.
    pub allow_destructive: bool,
}

/// What a file changed.
#[derive(Debug, Default)]
struct Findings {
    found: Vec<RehearsalFinding>,
}

impl Findings {
    fn add(&mut self, class: FindingClass, object: &CatalogObject, message: String, refused: bool) {
        self.push(class, object, message, refused, None);
    }

    fn add_right(&mut self, object: &CatalogObject, right: RightsChange, message: String) {
        self.push(FindingClass::Rights, object, message, true, Some(right));
    }

    fn push(
        &mut self,
        class: FindingClass,
        object: &CatalogObject,
        message: String,
        refused: bool,
        right: Option<RightsChange>,
    ) {
        let finding = RehearsalFinding {
            file: String::new(),
            line: None,
            column: None,
            class,
            object: object.address.clone(),
            message,
            refused,
            right,
        };
        if !self.found.contains(&finding) {
            self.found.push(finding);
        }
    }
}

impl Comparison<'_> {
    /// Everything that a person should know of the file. The findings have no file and no place yet.
    pub fn findings(&self) -> Vec<RehearsalFinding> {
        let mut findings = Findings::default();
        for object in self.after.objects() {
            match self.before.get(object.key()) {
                None => self.created(object, &mut findings),
                Some(before) => self.changed(before, object, &mut findings),
            }
        }
        for object in self.before.objects().filter(|object| !self.after.contains(object.key())) {
            self.dropped(object, &mut findings);
        }
        self.rows_changed(&mut findings);
        findings.found
    }

    /// The relations with data of tenants that were written again as a whole.
    pub fn rewritten(&self) -> Vec<RewrittenRelation> {
        let is_table =
            |object: &&CatalogObject| matches!(object.kind.as_str(), "table" | "materialized view");
        let was_rewritten = |object: &&CatalogObject| {
            self.accepted.contains(object.key())
                && self.before.get(object.key()).is_some_and(|before| before.file != object.file)
        };
        self.after
            .objects()
            .filter(is_table)
            .filter(was_rewritten)
            .map(|object| RewrittenRelation { relation: object.address.clone(), bytes: object.bytes })
            .collect()
    }

    /// Whether functions of meters were created or changed.
    pub fn has_new_meters(&self) -> bool {
        let mut of_meters = self.after.objects().filter(|object| object.is_of_a_meter);
        of_meters.any(|object| {
            self.before.get(object.key()).is_none_or(|before| before.definition != object.definition)
        })
    }

    fn created(&self, object: &CatalogObject, findings: &mut Findings) {
        let label = object.label();
        if object.is_of_a_meter || object.address == PROGRESS {
            return;
        }
        let is_part_of_new = object.parent != 0 && self.before.relation(object.parent).is_none();
        match &object.schema {
            _ if is_part_of_new => {}
            _ if self.is_others_relation(object.parent) => {
                let table = self.name_of(object.parent);
                let message = format!(
                    "creates {label} on {table}, which is not this module's: a module changes only its own objects; \
                     have the module that owns it do that"
                );
                findings.add(FindingClass::OutsideSchema, object, message, true);
            }
            Some(schema) if schema != self.schema && object.parent == 0 => {
                let message = format!(
                    "creates {label} in schema {schema}; the module's schema is {}: leave the schema out of the name, or \
                     name that one",
                    self.schema
                );
                findings.add(FindingClass::OutsideSchema, object, message, true);
            }
            None if object.kind == "default privileges" => findings.add_right(
                object,
                RightsChange::Defaults,
                "changes default privileges: Tenantry sets those of tenantry_owner; remove ALTER DEFAULT PRIVILEGES".to_owned(),
            ),
            None if object.kind == "setting" => findings.add(
                FindingClass::Rights,
                object,
                format!("stores a setting of {}: use SET LOCAL, or a header of the file", object.address),
                true,
            ),
            None if object.kind != "cast" && object.kind != "transform" => {
                let message = format!("creates {label}, which is in no schema: a module's objects are in its schema");
                findings.add(FindingClass::OutsideSchema, object, message, true);
            }
            _ => {}
        }
        self.check(object, findings);
    }

    /// What must be so of every object of a module.
    fn check(&self, object: &CatalogObject, findings: &mut Findings) {
        if !object.owner.is_empty() && object.owner != OWNER {
            let message = format!(
                "{} belongs to {}: a module's objects belong to tenantry_owner; remove SET ROLE, RESET ROLE and OWNER TO",
                object.label(),
                object.owner
            );
            findings.add_right(object, RightsChange::Owned(object.owner.clone()), message);
        }
        let strangers: Vec<&str> = object
            .grantees
            .iter()
            .map(String::as_str)
            .filter(|grantee| !KNOWN_GRANTEES.contains(grantee))
            .collect();
        if let Some(first) = strangers.first() {
            let message = format!(
                "grants rights on {} to {}: a tenant's login has its rights from the group of its access level, and no \
                 other role has any; remove the GRANT",
                object.label(),
                strangers.join(", ")
            );
            findings.add_right(object, RightsChange::Granted((*first).to_owned()), message);
        }
        if object.is_unsafe_definer {
            let message = format!(
                "{} is SECURITY DEFINER, and its caller chooses where its names are looked up: add SET search_path = {}, \
                 pg_temp to it",
                object.label(),
                self.schema
            );
            findings.add(FindingClass::Rights, object, message, true);
        }
    }

    fn changed(&self, before: &CatalogObject, now: &CatalogObject, findings: &mut Findings) {
        let differs = (&before.definition, &before.name, &before.schema, &before.owner, &before.parents)
            != (&now.definition, &now.name, &now.schema, &now.owner, &now.parents)
            || before.column_type != now.column_type
            || before.unlogged != now.unlogged;
        if matches!(now.kind.as_str(), "default privileges" | "setting") {
            if differs {
                // As if it were new.
                self.created(now, findings);
            }
            return;
        }
        if self.is_others(now) {
            if differs {
                let message = format!(
                    "changes {}, which is not this module's: a module changes only its own objects",
                    before.label()
                );
                findings.add(FindingClass::OutsideSchema, before, message, true);
            }
            if before.grantees != now.grantees {
                self.check(now, findings);
            }
            return;
        }
        if (&before.owner, &before.grantees, before.is_unsafe_definer)
            != (&now.owner, &now.grantees, now.is_unsafe_definer)
        {
            self.check(now, findings);
        }
        if before.schema != now.schema && now.schema.as_deref() != Some(self.schema) && now.parent == 0 {
            let message = format!(
                "moves {} out of the module's schema {}, to {}",
                before.label(),
                self.schema,
                now.address
            );
            findings.add(FindingClass::OutsideSchema, before, message, true);
        }
        if !self.accepted.contains(now.key()) {
            return;
        }
        let mut destructive = |message: String| {
            findings.add(FindingClass::Destructive, before, message, !self.allow_destructive)
        };
        let is_used = is_used_by_name(&now.kind);
        if is_used && (before.name != now.name || before.schema != now.schema && now.parent == 0) {
            destructive(format!(
                "renames {} to {}: the application that runs now uses the old name; {ALLOW}",
                before.label(),
                now.address
            ));
        }
        if let (Some(from), Some(to)) = (&before.column_type, &now.column_type)
            && !is_widening(from, to)
        {
            destructive(format!(
                "changes the type of {} from {from} to {to}, which may not hold every value; {ALLOW}",
                before.label()
            ));
        }
        if let Some(label) = before.labels.iter().find(|label| !now.labels.contains(label)) {
            destructive(format!(
                "renames value '{label}' of {}: the application that runs now uses it; {ALLOW}",
                before.label()
            ));
        }
        if let Some(parent) = before.parents.iter().find(|parent| !now.parents.contains(parent)) {
            destructive(format!("detaches {} from {parent}, whose rows it has; {ALLOW}", before.label()));
        }
        if now.unlogged && !before.unlogged {
            destructive(format!("makes {} unlogged: its rows are lost in a crash; {ALLOW}", before.label()));
        }
    }

    fn dropped(&self, object: &CatalogObject, findings: &mut Findings) {
        let is_part_of_dropped = object.parent != 0 && self.after.relation(object.parent).is_none();
        if object.is_of_a_meter || is_part_of_dropped {
            return;
        }
        let label = object.label();
        if matches!(object.kind.as_str(), "default privileges" | "setting") {
            self.created(object, findings);
        } else if self.is_others(object) {
            let message =
                format!("drops {label}, which is not this module's: a module changes only its own objects");
            findings.add(FindingClass::OutsideSchema, object, message, true);
        } else if self.accepted.contains(object.key()) {
            let again = self.after.has_label(&label);
            let (destructive, message) = match (has_rows(&object.kind), is_used_by_name(&object.kind), again)
            {
                (true, _, true) => (
                    true,
                    format!(
                        "drops {label}, and creates another one of that name: what was in it is lost; {ALLOW}"
                    ),
                ),
                (true, _, false) => (true, format!("drops {label}: what is in it is lost; {ALLOW}")),
                (false, true, false) => {
                    (true, format!("drops {label}: the application that runs now uses it; {ALLOW}"))
                }
                (false, _, true) => (false, format!("replaces {label}")),
                (false, false, false) => (false, format!("drops {label}")),
            };
            let class = if destructive { FindingClass::Destructive } else { FindingClass::Note };
            findings.add(class, object, message, destructive && !self.allow_destructive);
        }
    }

    fn rows_changed(&self, findings: &mut Findings) {
        for change in self.rows {
            let Some(table) = self.before.relation(change.table) else { continue };
            let is_internal = table.schema.as_deref() == Some(INTERNAL);
            let what = match change.operation.as_str() {
                "INSERT" => "adds rows to",
                "UPDATE" => "changes rows of",
                "DELETE" => "deletes rows of",
                _ => "empties",
            };
            let message = format!("{what} {}", table.label());
            match (is_internal, self.is_others(table), change.operation.as_str()) {
                (true, ..) if change.by_tenantry => {}
                (true, ..) => {
                    let message = format!(
                        "{message}: Tenantry alone writes there; call its functions, such as tenantry.meter"
                    );
                    findings.add(FindingClass::OutsideSchema, table, message, true);
                }
                (false, true, "INSERT") => {
                    findings.add(
                        FindingClass::Note,
                        table,
                        format!("{message}, which is another module's"),
                        false,
                    );
                }
                (false, true, _) => {
                    let message =
                        format!("{message}, which is another module's: a module changes only its own rows");
                    findings.add(FindingClass::OutsideSchema, table, message, true);
                }
                (false, false, "DELETE" | "TRUNCATE") => {
                    let message = format!("{message}: a tenant's data is lost; {ALLOW}");
                    findings.add(FindingClass::Destructive, table, message, !self.allow_destructive);
                }
                (false, false, _) => findings.add(FindingClass::Note, table, message, false),
            }
        }
        for table in self.unwatched.iter().filter_map(|oid| self.before.relation(*oid)) {
            // A table that was dropped is reported as such.
            if !self.after.contains(table.key()) {
                continue;
            }
            let message = format!(
                "disables or drops triggers of {} that it did not create, so that what it did to the rows was not seen; {ALLOW}",
                table.label()
            );
            let is_others = self.is_others(table);
            let class = if is_others { FindingClass::OutsideSchema } else { FindingClass::Destructive };
            findings.add(class, table, message, is_others || !self.allow_destructive);
        }
    }

    /// Whether an object was there before the module.
    fn is_others(&self, object: &CatalogObject) -> bool {
        self.others.contains(object.key())
    }

    fn is_others_relation(&self, oid: i64) -> bool {
        oid != 0 && self.others.relation(oid).is_some()
    }

    fn name_of(&self, oid: i64) -> String {
        self.before
            .relation(oid)
            .or_else(|| self.after.relation(oid))
            .map_or_else(String::new, CatalogObject::label)
    }
}

/// The rights that are not as Tenantry sets them after a file, and were before.
pub fn rights_findings(before: &[RightsMismatch], after: &[RightsMismatch]) -> Vec<RehearsalFinding> {
    let is_new = |mismatch: &&RightsMismatch| !before.contains(mismatch);
    let finding = |mismatch: &RightsMismatch| {
        let (RightsMismatch::Excess { object, .. }
        | RightsMismatch::Missing { object, .. }
        | RightsMismatch::Owned(object)) = mismatch;
        let name = object.name();
        let right = match mismatch {
            RightsMismatch::Excess { grantee, .. } => RightsChange::Granted(grantee.clone()),
            RightsMismatch::Missing { grantee, .. } => RightsChange::Revoked(grantee.clone()),
            RightsMismatch::Owned(object) => RightsChange::Owned(object.owner.clone()),
        };
        let message = match mismatch {
            RightsMismatch::Excess { grantee, privileges, .. } => format!(
                "leaves {grantee} with {} on {name}: Tenantry alone grants rights, by the schema's default privileges, and \
                 revokes others; remove the GRANT",
                privileges.join(", ")
            ),
            RightsMismatch::Missing { grantee, privileges, .. } => format!(
                "leaves {grantee} without {} on {name}: Tenantry alone grants rights, by the schema's default privileges, \
                 and restores them; remove the REVOKE",
                privileges.join(", ")
            ),
            RightsMismatch::Owned(object) => format!(
                "leaves {} as the owner of {name}: a module's objects belong to tenantry_owner; remove OWNER TO",
                object.owner
            ),
        };
        RehearsalFinding {
            file: String::new(),
            line: None,
            column: None,
            class: FindingClass::Rights,
            object: object.address.clone(),
            message,
            refused: true,
            right: Some(right),
        }
    };
    after.iter().filter(is_new).filter(|mismatch| !is_default(mismatch)).map(finding).collect()
}

/// Whether it is one of default privileges, which are compared as objects.
fn is_default(mismatch: &RightsMismatch) -> bool {
    let (RightsMismatch::Excess { object, .. }
    | RightsMismatch::Missing { object, .. }
    | RightsMismatch::Owned(object)) = mismatch;
    object.is_default_privileges()
}

/// Whether an object of this kind has what cannot be made again.
fn has_rows(kind: &str) -> bool {
    matches!(kind, "table" | "foreign table" | "column" | "sequence" | "type")
}

/// Whether an application uses objects of this kind by their names.
fn is_used_by_name(kind: &str) -> bool {
    has_rows(kind) || matches!(kind, "view" | "materialized view" | "function" | "schema")
}

#[cfg(test)]
mod tests;
