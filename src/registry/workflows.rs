//! Workflows: one at a time per tenant, among all operator processes.
//!
//! A workflow is claimed by the process that runs it for as long as that process's claim session is open (see `claim`). Its
//! id and its attempt number prove that no other process has taken it over.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{FromRow, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Error, Registry, Result, record::one_of};
use crate::{
    api::{reason::Reason, tenant_status::WorkflowKind},
    domain::{
        identity::TenantId,
        workflow::{attempt::WorkflowRecord, step::Step},
    },
};

/// The maximum number of failures of one provisioning in the activity log.
const FAILURES_LOGGED: i64 = 20;

/// How a workflow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkflowOutcome {
    /// All its steps are done.
    Succeeded,
    /// It failed with a permanent error.
    Failed,
    /// A workflow of another kind took its place.
    Superseded,
}

impl WorkflowOutcome {
    /// The text in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Superseded => "Superseded",
        }
    }
}

/// The history of one step of a workflow, over all its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepHistory {
    /// The step's name.
    pub step: String,
    /// Its state, as in a Tenant's status: `Succeeded`, `Failed` and so on.
    pub state: String,
    /// The number of times it was started.
    pub attempts: i32,
    /// When it last started.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// Its message, or why it failed.
    pub message: Option<String>,
    /// The SQLSTATE of its failure.
    pub sql_state: Option<String>,
}

impl Registry {
    /// Starts a workflow for this tenant, or resumes the unfinished one of this kind, even one of another process. An
    /// unfinished one of another kind is superseded. Refused with [`Error::Claimed`] while another live process runs one.
    pub async fn begin_workflow(&self, id: TenantId, kind: WorkflowKind) -> Result<WorkflowRecord> {
        let mut claim = self.claim.key(None).await?;
        let mut tries = 0;
        loop {
            tries += 1;
            let begun = sqlx::query(
                "WITH mine AS MATERIALIZED (SELECT claim_held($3) AS held),
                 running AS MATERIALIZED (
                     SELECT w.id, w.kind, w.holder, w.claim <> $3 AND claim_held(w.claim) AS elsewhere
                     FROM workflows w, mine
                     WHERE mine.held AND w.tenant_id = $1 AND w.finished_at IS NULL FOR UPDATE OF w),
                 resumed AS (
                     UPDATE workflows w SET attempt = w.attempt + 1, claim = $3, attempt_started_at = now(),
                         holder = current_setting('application_name'), next_attempt_at = NULL
                     FROM running r WHERE w.id = r.id AND r.kind = $2 AND NOT r.elsewhere
                     RETURNING w.id, w.attempt, w.started_at, w.failures),
                 superseded AS (
                     UPDATE workflows w SET finished_at = now(), outcome = 'Superseded'
                     FROM running r WHERE w.id = r.id AND r.kind <> $2 AND NOT r.elsewhere
                     RETURNING w.id, w.kind),
                 begun AS (
                     INSERT INTO workflows (id, tenant_id, kind, holder, claim)
                     -- The first one has the correlation id of the registration.
                     SELECT coalesce(
                             (SELECT a.correlation_id FROM activity a
                              WHERE a.tenant_id = $1 AND a.action = 'Registered' AND $2 = 'Provision'
                                AND NOT EXISTS (SELECT FROM workflows w WHERE w.tenant_id = $1)
                              ORDER BY a.at LIMIT 1),
                             gen_random_uuid()),
                         $1, $2, current_setting('application_name'), $3
                     FROM mine
                     WHERE mine.held AND NOT EXISTS (SELECT FROM running r WHERE r.elsewhere OR r.kind = $2)
                         -- Forces that update to run first: a unique index allows one running workflow per tenant.
                         AND (SELECT count(*) FROM superseded) >= 0
                     RETURNING id, attempt, started_at, failures),
                 logged AS (
                     INSERT INTO activity (tenant_id, action, actor, correlation_id)
                     -- A process that was killed may have activated the tenant.
                     SELECT t.id, 'Completed', 'tenantry', s.id FROM superseded s JOIN tenants t ON t.id = $1
                     WHERE s.kind = 'Provision' AND t.activated_at IS NOT NULL
                     UNION ALL SELECT $1, 'Started', 'tenantry', id FROM begun WHERE $2 = 'Provision')
                 SELECT mine.held, (SELECT holder FROM running WHERE elsewhere) AS elsewhere, w.*
                 FROM mine LEFT JOIN (SELECT * FROM resumed UNION ALL SELECT * FROM begun) w ON true",
            )
            .bind(id.0)
            .bind(kind.as_str())
            .bind(claim)
            .fetch_one(&self.pool)
            .await;
            let row = match begun {
                Ok(row) => row,
                Err(error) => match error.as_database_error() {
                    Some(refusal) if refusal.is_foreign_key_violation() => return Err(Error::NotFound(id)),
                    // Another process began one at the same moment: the next try reads it.
                    Some(refusal) if refusal.is_unique_violation() && tries < 3 => continue,
                    _ => return Err(error.into()),
                },
            };
            if let Some(holder) = row.try_get::<Option<String>, _>("elsewhere")? {
                return Err(Error::Claimed { holder });
            }
            if row.try_get::<Option<Uuid>, _>("id")?.is_some() {
                return Ok(workflow(&row)?);
            }
            if row.try_get("held")? || tries >= 3 {
                return Err(Error::TakenOver);
            }
            // The session with the claims was closed: the server was restarted, or a new leader has ended it.
            claim = self.claim.key(Some(claim)).await?;
        }
    }

    /// Records the state of these steps of the run. Other steps stay as they are.
    pub async fn record_steps(&self, workflow: &WorkflowRecord, steps: &[StepHistory]) -> Result<()> {
        let (mut names, mut states, mut attempts, mut messages, mut sql_states) =
            (vec![], vec![], vec![], vec![], vec![]);
        let (mut started, mut finished) = (vec![], vec![]);
        for step in steps {
            names.push(step.step.as_str());
            states.push(step.state.as_str());
            attempts.push(step.attempts);
            started.push(step.started_at.map(|time| time.to_sqlx()));
            finished.push(step.finished_at.map(|time| time.to_sqlx()));
            messages.push(step.message.as_deref());
            sql_states.push(step.sql_state.as_deref());
        }
        let ours: bool = sqlx::query_scalar(
            "WITH ours AS MATERIALIZED (SELECT id FROM workflows WHERE id = $1 AND attempt = $2),
             written AS (
                 INSERT INTO workflow_steps AS s
                     (workflow_id, name, state, attempts, started_at, finished_at, message, sql_state)
                 SELECT ours.id, n.* FROM ours, unnest($3::text[], $4::text[], $5::integer[],
                     $6::timestamptz[], $7::timestamptz[], $8::text[], $9::text[]) AS n
                 ON CONFLICT (workflow_id, name) DO UPDATE SET (state, attempts, started_at, finished_at, message,
                     sql_state) = (excluded.state, excluded.attempts, excluded.started_at, excluded.finished_at,
                     excluded.message, excluded.sql_state))
             SELECT EXISTS (SELECT FROM ours)",
        )
        .bind(workflow.id)
        .bind(workflow.attempt)
        .bind(names)
        .bind(states)
        .bind(attempts)
        .bind(started)
        .bind(finished)
        .bind(messages)
        .bind(sql_states)
        .fetch_one(&self.pool)
        .await?;
        if ours { Ok(()) } else { Err(Error::TakenOver) }
    }

    /// The recorded steps of a workflow, in the order in which they started.
    pub async fn steps(&self, workflow: Uuid) -> Result<Vec<StepHistory>> {
        let steps = sqlx::query_as(
            "SELECT name, state, attempts, started_at, finished_at, message, sql_state FROM workflow_steps
             WHERE workflow_id = $1 ORDER BY started_at NULLS LAST, name",
        )
        .bind(workflow)
        .fetch_all(&self.pool)
        .await?;
        Ok(steps)
    }

    /// A run has failed, at this step, and the workflow will be tried again at `next` or later. Its claim ends: any leader
    /// may try it then. Each different failure of a provisioning has a row in the activity log: what differs from an earlier
    /// one in numbers only is the same failure.
    pub async fn postpone_workflow(
        &self,
        workflow: &WorkflowRecord,
        step: Option<Step>,
        reason: Reason,
        message: &str,
        next: Timestamp,
    ) -> Result<()> {
        let postponed: bool = sqlx::query_scalar(
            "WITH postponed AS (
                 UPDATE workflows SET failures = failures + 1, failure_reason = $3, failure_message = $4,
                     next_attempt_at = $5, claim = 0
                 WHERE id = $1 AND attempt = $2 AND finished_at IS NULL RETURNING id, tenant_id, kind, started_at),
             before AS (
                 SELECT a.details, regexp_replace(a.reason, '[0-9]+', '0', 'g') AS message
                 FROM activity a JOIN postponed p ON p.tenant_id = a.tenant_id AND p.id = a.correlation_id
                 WHERE p.kind = 'Provision' AND a.action = 'StepFailed' AND a.at >= p.started_at),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT tenant_id, 'StepFailed', 'tenantry', $4, id, jsonb_build_object('step', $6::text, 'reason', $3::text)
                 FROM postponed
                 WHERE kind = 'Provision' AND $6 IS NOT NULL AND (SELECT count(*) FROM before) < $7
                   AND NOT EXISTS (
                     SELECT FROM before WHERE details = jsonb_build_object('step', $6::text, 'reason', $3::text)
                         AND message = regexp_replace($4, '[0-9]+', '0', 'g')))
             SELECT EXISTS (SELECT FROM postponed)",
        )
        .bind(workflow.id)
        .bind(workflow.attempt)
        .bind(reason.as_str())
        .bind(message)
        .bind(next.to_sqlx())
        .bind(step.map(Step::as_str))
        .bind(FAILURES_LOGGED)
        .fetch_one(&self.pool)
        .await?;
        if postponed { Ok(()) } else { Err(Error::TakenOver) }
    }

    /// Ends the workflow that a terminated process left open although all its steps were done. Returns the tenant's last
    /// workflow with its kind.
    pub async fn settle_workflow(&self, id: TenantId) -> Result<Option<(WorkflowKind, WorkflowRecord)>> {
        let settled = sqlx::query(
            "WITH settled AS (
                 UPDATE workflows SET finished_at = now(), outcome = 'Succeeded', next_attempt_at = NULL
                 WHERE tenant_id = $1 AND finished_at IS NULL
                   AND (holder = current_setting('application_name') OR NOT claim_held(claim))
                 RETURNING id, kind),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id)
                 SELECT $1, 'Completed', 'tenantry', id FROM settled WHERE kind = 'Provision')
             SELECT id, kind, attempt, started_at, failures FROM workflows
             WHERE tenant_id = $1 ORDER BY started_at DESC LIMIT 1",
        )
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = settled else { return Ok(None) };
        let kind = one_of(&row, "kind", WorkflowKind::ALL, WorkflowKind::as_str)?;
        Ok(Some((kind, workflow(&row)?)))
    }

    /// Ends a workflow. The tenant's next workflow is a new one.
    pub async fn finish_workflow(&self, workflow: &WorkflowRecord, outcome: WorkflowOutcome) -> Result<()> {
        let finished: bool = sqlx::query_scalar(
            "WITH finished AS (
                 UPDATE workflows SET finished_at = coalesce(finished_at, now()), outcome = $3
                 WHERE id = $1 AND attempt = $2 AND (finished_at IS NULL OR outcome = $3)
                 RETURNING id, tenant_id, kind, finished_at = now() AS is_new),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id)
                 SELECT tenant_id, 'Completed', 'tenantry', id FROM finished
                 WHERE is_new AND kind = 'Provision' AND $3 = 'Succeeded')
             SELECT EXISTS (SELECT FROM finished)",
        )
        .bind(workflow.id)
        .bind(workflow.attempt)
        .bind(outcome.as_str())
        .fetch_one(&self.pool)
        .await?;
        if finished { Ok(()) } else { Err(Error::TakenOver) }
    }
}

fn workflow(row: &PgRow) -> sqlx::Result<WorkflowRecord> {
    Ok(WorkflowRecord {
        id: row.try_get("id")?,
        attempt: row.try_get("attempt")?,
        started_at: row.try_get::<jiff_sqlx::Timestamp, _>("started_at")?.to_jiff(),
        failures: row.try_get("failures")?,
    })
}

impl<'r> FromRow<'r, PgRow> for StepHistory {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let time = |column: &str| {
            row.try_get::<Option<jiff_sqlx::Timestamp>, _>(column).map(|time| time.map(|time| time.to_jiff()))
        };
        Ok(Self {
            step: row.try_get("name")?,
            state: row.try_get("state")?,
            attempts: row.try_get("attempts")?,
            started_at: time("started_at")?,
            finished_at: time("finished_at")?,
            message: row.try_get("message")?,
            sql_state: row.try_get("sql_state")?,
        })
    }
}
