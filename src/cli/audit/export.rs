//! `tenantry audit export`: the activity log as JSON Lines, or as CloudEvents 1.0 in the JSON event format.

use clap::{Args, ValueEnum};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{AuditError, RegistryArguments, line, print};
use crate::{
    domain::activity_chain::{LoggedActivity, hexadecimal_hash},
    registry::ActivityFilter,
};

/// The prefix of the type of each event.
const TYPE: &str = "dev.tenantry.activity.";

/// Flags of `tenantry audit export`.
#[derive(Args)]
#[command(after_help = "\
Prints one row per line, in the order in which they were written. A row that was written by a transaction that was still \
open may be missing, and follow in the next export: overlap exports by some minutes, and let the id decide.\n\n\
Reasons and details are about customers: treat the output like the registry itself.\n\n\
Examples:\n  \
tenantry audit export --tenant acme --since 2026-11-01\n  \
tenantry audit export --format cloudevents --since 2026-11-30T12:00:00Z")]
pub(super) struct ExportArguments {
    #[command(flatten)]
    registry: RegistryArguments,

    /// Format of each line
    #[arg(long, env = "TENANTRY_AUDIT_FORMAT", value_enum, default_value_t = ExportFormat::Jsonl)]
    format: ExportFormat,

    /// Only rows of the tenants that have or had this slug; default: all rows
    #[arg(long, env = "TENANTRY_AUDIT_TENANT", value_name = "SLUG")]
    tenant: Option<String>,

    /// Only rows of this time or later: a date (its beginning in UTC) or a time in RFC 3339
    #[arg(long, env = "TENANTRY_AUDIT_SINCE", value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
}

/// The format of a line.
#[derive(Clone, Copy, ValueEnum)]
enum ExportFormat {
    /// A JSON object with the columns of the row
    Jsonl,
    /// A CloudEvents 1.0 event in JSON
    Cloudevents,
}

/// A row, as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportedActivity<'r> {
    id: i64,
    tenant: Option<Uuid>,
    at: &'r str,
    action: &'r str,
    actor: &'r str,
    reason: Option<&'r str>,
    /// As PostgreSQL prints it, because the hash is that of this text.
    details: &'r RawValue,
    correlation: Option<Uuid>,
    position: Option<i64>,
    previous_hash: Option<String>,
    hash: Option<String>,
}

/// The attributes of an event, and the row as its data.
#[derive(Serialize)]
struct CloudEvent<'r> {
    specversion: &'static str,
    id: String,
    source: &'r str,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: &'r str,
    datacontenttype: &'static str,
    /// Of the documented extension "correlation".
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<String>,
    data: ExportedActivity<'r>,
}

/// Prints the rows.
pub(super) async fn export(arguments: ExportArguments) -> Result<(), AuditError> {
    let registry = arguments.registry.connect().await?;
    let source = format!("urn:uuid:{}", registry.installation().await?.id);
    let tenants = match arguments.tenant {
        Some(slug) => match registry.tenants_with_slug(&slug).await? {
            none if none.is_empty() => return Err(AuditError::Slug(slug)),
            tenants => Some(tenants),
        },
        None => None,
    };
    let filter = ActivityFilter { tenants, since: arguments.since };
    let mut last = 0;
    loop {
        let rows = registry.activity_after(last, &filter).await?;
        let Some(end) = rows.last() else { return Ok(()) };
        last = end.id;
        let mut lines = String::new();
        for row in &rows {
            let printed = match arguments.format {
                ExportFormat::Jsonl => exported(row).and_then(|row| line(&row)),
                ExportFormat::Cloudevents => event(row, &source).and_then(|event| line(&event)),
            };
            lines += &printed.map_err(|error| AuditError::Row(row.id, error))?;
        }
        print(&lines)?;
    }
}

fn exported(row: &LoggedActivity) -> Result<ExportedActivity<'_>, serde_json::Error> {
    let link = row.link.as_ref();
    Ok(ExportedActivity {
        id: row.id,
        tenant: row.tenant,
        at: &row.at,
        action: &row.action,
        actor: &row.actor,
        reason: row.reason.as_deref(),
        details: serde_json::from_str(&row.details)?,
        correlation: row.correlation,
        position: link.map(|link| link.position),
        previous_hash: link.map(|link| hexadecimal_hash(&link.previous)),
        hash: link.map(|link| hexadecimal_hash(&link.hash)),
    })
}

/// A registry that was restored gives ids again: the beginning of the hash distinguishes the rows.
fn event<'r>(row: &'r LoggedActivity, source: &'r str) -> Result<CloudEvent<'r>, serde_json::Error> {
    let id = match &row.link {
        Some(link) => format!("{}-{:.16}", row.id, hexadecimal_hash(&link.hash)),
        None => row.id.to_string(),
    };
    Ok(CloudEvent {
        specversion: "1.0",
        id,
        source,
        kind: format!("{TYPE}{}", row.action),
        subject: row.tenant.map(|tenant| tenant.to_string()),
        time: &row.at,
        datacontenttype: "application/json",
        correlationid: row.correlation.map(|id| id.to_string()),
        data: exported(row)?,
    })
}

/// A time in RFC 3339, or a date.
fn time(text: &str) -> Result<Timestamp, String> {
    let of_date = |date: Date| date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    text.parse()
        .or_else(|_| text.parse().and_then(of_date))
        .map_err(|_| "a date such as 2026-11-30, or a time such as 2026-11-30T12:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::activity_chain::ChainLink;

    #[test]
    fn row_is_a_cloud_event_with_the_exported_row_as_data() {
        let row = LoggedActivity {
            id: 41,
            tenant: Some(Uuid::from_u128(7)),
            at: "2026-11-30T12:00:00.000001Z".to_owned(),
            at_micros: Some(0),
            action: "Suspended".to_owned(),
            actor: "ada".to_owned(),
            reason: None,
            details: r#"{"n": 1.50}"#.to_owned(),
            correlation: Some(Uuid::from_u128(9)),
            archived: true,
            link: Some(ChainLink { position: 3, previous: vec![0; 32], hash: vec![0xab; 32] }),
        };
        let source = "urn:uuid:00000000-0000-0000-0000-000000000001";
        let text = line(&event(&row, source).unwrap()).unwrap();
        assert!(text.ends_with("}\n") && text.contains(r#""details":{"n": 1.50}"#), "{text}");
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "specversion": "1.0",
            "id": "41-abababababababab",
            "source": source,
            "type": "dev.tenantry.activity.Suspended",
            "subject": "00000000-0000-0000-0000-000000000007",
            "time": "2026-11-30T12:00:00.000001Z",
            "datacontenttype": "application/json",
            "correlationid": "00000000-0000-0000-0000-000000000009",
            "data": {
                "id": 41, "tenant": "00000000-0000-0000-0000-000000000007", "at": "2026-11-30T12:00:00.000001Z",
                "action": "Suspended", "actor": "ada", "reason": null, "details": {"n": 1.5},
                "correlation": "00000000-0000-0000-0000-000000000009", "position": 3,
                "previousHash": "0".repeat(64), "hash": "ab".repeat(32),
            },
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn attributes_without_a_value_are_left_out() {
        let row = LoggedActivity {
            id: 1,
            tenant: None,
            at: "2026-11-30T12:00:00.000000Z".to_owned(),
            at_micros: Some(0),
            action: "ServerReplaced".to_owned(),
            actor: "tenantry".to_owned(),
            reason: None,
            details: "{}".to_owned(),
            correlation: None,
            archived: false,
            link: None,
        };
        let event = serde_json::to_value(event(&row, "urn:uuid:x").unwrap()).unwrap();
        assert_eq!(event["id"], "1");
        for attribute in ["subject", "correlationid"] {
            assert!(event.get(attribute).is_none(), "{event}");
        }
        // Names of attributes are lower-case letters and digits.
        let names = event.as_object().unwrap().keys();
        assert!(names.into_iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase())), "{event}");
    }

    #[test]
    fn since_is_a_date_or_a_time() {
        let seconds = |text| time(text).map(|time| time.as_second());
        assert_eq!(seconds("1970-01-02"), Ok(86_400));
        assert_eq!(seconds("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(seconds("yesterday").unwrap_err().contains("2026-11-30"));
    }
}
