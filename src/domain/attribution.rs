//! Who changed an object: the user whom the API server authenticated, as admission policies of the chart record it in an
//! annotation. Only a Kubernetes of 1.36 or newer does; docs/actors.md has the format.
//!
//! Each line of the annotation is one change of `spec`, the newest first: the generation that it gave the object, the fields
//! that differed (`*`: all, or not known which), and the user. An entry belongs to one generation, so that a change that was
//! overwritten before the operator saw it is still that of its user.

use std::fmt;

use super::{
    access::evaluate::{AccessEvaluation, RestrictionCause},
    state_reason::given,
};
use crate::api::tenant::Tenant;

/// The fields of a Tenant's spec that say directly which state is wanted.
pub const STATE_FIELDS: [&str; 3] = ["state", "stateReason", "suspension"];

/// Other fields on which a tenant's access depends.
const ACCESS_FIELDS: [&str; 4] = ["trial", "validity", "gates", "plan"];

/// The fields that decide how a tenant is deprovisioned.
pub const OFFBOARDING_FIELDS: [&str; 5] = ["state", "offboarding", "deletionPolicy", "paused", "plan"];

/// The name of the operator as an actor.
const TENANTRY: &str = "tenantry";

/// The word for an actor who is not known.
const UNKNOWN: &str = "unknown";

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A user of the API server, by the name that it authenticated.
    User(String),
    /// The operator: a date that passed, a limit that was reached, a step that ended.
    Tenantry,
    /// Not known.
    Unknown(UnknownActor),
}

/// Why a user is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownActor {
    /// The API server has no policies that can record it.
    OldKubernetes,
    /// The policies are not installed, or not in force.
    NoPolicy,
    /// The policies are in force, and the change was made before that, or too many changes followed.
    NotRecorded,
    /// A deletion leaves no annotation.
    Deletion,
    /// It was requested by an annotation, which is not recorded.
    Annotation,
}

impl UnknownActor {
    /// The text in parentheses.
    fn as_str(self) -> &'static str {
        match self {
            Self::OldKubernetes => "Kubernetes before 1.36",
            Self::NoPolicy => "no admission policy",
            Self::NotRecorded => "not recorded",
            Self::Deletion => "deletion",
            Self::Annotation => "annotation",
        }
    }
}

impl Actor {
    /// The user who set an annotation that requests something.
    pub fn by_annotation() -> Self {
        Self::Unknown(UnknownActor::Annotation)
    }

    /// The user who deleted an object. The place for the webhook that will record deletions: until then, nothing does.
    pub fn of_deletion() -> Self {
        Self::Unknown(UnknownActor::Deletion)
    }
}

impl fmt::Display for Actor {
    /// As it is recorded. A user with a name that could be mistaken for one of ours is quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) if name == TENANTRY || name.starts_with(UNKNOWN) => write!(f, "{name:?}"),
            Self::User(name) => f.write_str(name),
            Self::Tenantry => f.write_str(TENANTRY),
            Self::Unknown(why) => write!(f, "{UNKNOWN} ({})", why.as_str()),
        }
    }
}

/// One change of an object's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecChange {
    /// The generation that it gave the object.
    pub generation: i64,
    /// The fields of the spec that differed; none: all, or not known which.
    pub fields: Option<Vec<String>>,
    /// The user.
    pub user: String,
}

impl SpecChange {
    /// Whether it may have changed this field.
    pub fn touches(&self, field: &str) -> bool {
        self.fields.as_ref().is_none_or(|fields| fields.iter().any(|changed| changed == field))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let generation = parts.next()?.parse().ok().filter(|generation| *generation > 0)?;
        let fields = parts.next()?;
        let user = parts.next().filter(|user| !user.is_empty())?.to_owned();
        let named = (fields != "*").then(|| fields.split(',').map(str::to_owned).collect());
        Some(Self { generation, fields: named, user })
    }
}

/// The last changes of an object's spec, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedChanges {
    /// The newest first.
    list: Vec<SpecChange>,
    /// The object's generation.
    generation: i64,
    /// Why a change that is not in the list has no user.
    unknown: UnknownActor,
}

impl RecordedChanges {
    /// Those of an object of this generation with this annotation, which the policies protect.
    pub fn of(annotation: &str, generation: i64) -> Self {
        let parsed = annotation.split('\n').filter_map(SpecChange::parse);
        let mut list: Vec<SpecChange> = parsed.filter(|change| change.generation <= generation).collect();
        list.sort_by_key(|change| std::cmp::Reverse(change.generation));
        list.dedup_by_key(|change| change.generation);
        Self { list, generation, unknown: UnknownActor::NotRecorded }
    }

    /// None is known, for this reason.
    pub fn unknown(generation: i64, why: UnknownActor) -> Self {
        Self { list: Vec::new(), generation, unknown: why }
    }

    /// The object's generation.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// A change that is not recorded.
    pub fn missing(&self) -> Actor {
        Actor::Unknown(self.unknown)
    }

    /// The changes after a generation, the oldest first.
    pub fn since(&self, generation: i64) -> impl Iterator<Item = &SpecChange> {
        self.list.iter().rev().filter(move |change| change.generation > generation)
    }

    /// The last change of any of these fields after a generation.
    fn newest(&self, fields: &[&str], since: i64) -> Option<Actor> {
        let touching = |change: &&SpecChange| {
            change.generation > since && fields.iter().any(|field| change.touches(field))
        };
        self.list.iter().find(touching).map(|change| Actor::User(change.user.clone()))
    }

    /// Who last changed one of these fields.
    pub fn last(&self, fields: &[&str]) -> Actor {
        self.newest(fields, 0).unwrap_or(self.missing())
    }

    /// The reason that was given with the last change of the slug; none if another change has overwritten it.
    pub fn reason_of_slug<'a>(&self, tenant: &'a Tenant) -> Option<&'a str> {
        let last = |field| self.list.iter().find(|change| change.touches(field));
        let change = last("slug").zip(last("stateReason"));
        let is_together = change.is_none_or(|(slug, reason)| slug.generation == reason.generation);
        given(&tenant.spec).filter(|_| is_together)
    }

    /// Who last changed the object.
    pub fn last_of_all(&self) -> Actor {
        self.list.first().map_or(self.missing(), |change| Actor::User(change.user.clone()))
    }

    /// Who created the object.
    pub fn creator(&self) -> Actor {
        let creation = self.list.last().filter(|change| change.generation == 1);
        creation.map_or(self.missing(), |change| Actor::User(change.user.clone()))
    }

    /// Whether the user of every change after a generation is known. A deletion raises the generation too.
    fn is_complete(&self, since: i64) -> bool {
        let known = self.list.iter().filter(|change| change.generation > since).count();
        i64::try_from(known).is_ok_and(|known| known == self.generation - since)
    }

    /// Who caused a change of a tenant's state. `since` is the generation at which the state was recorded last, and `hold`
    /// the actor of a change of its holds since then.
    ///
    /// A date that passed is the operator's, even if a user wrote it.
    pub fn of_state(
        &self,
        evaluation: &AccessEvaluation,
        since: Option<i64>,
        hold: Option<&str>,
    ) -> StateActor {
        if evaluation.is_automatic() {
            return StateActor::Of(Actor::Tenantry);
        }
        // A tenant of an earlier release: only the last change can have led to this one.
        let since = since.filter(|since| *since <= self.generation).unwrap_or(self.generation - 1);
        let by_hold = hold.map(|hold| StateActor::Recorded(hold.to_owned()));
        let by_state = self.newest(&STATE_FIELDS, since).map(StateActor::Of);
        let restricts =
            |cause: &RestrictionCause| evaluation.restrictions.iter().any(|one| one.cause == *cause);
        let direct = match restricts(&RestrictionCause::SpecState) || evaluation.restrictions.is_empty() {
            true => by_state.or(by_hold),
            false => by_hold.or(by_state),
        };
        let indirect = || self.newest(&ACCESS_FIELDS, since).map(StateActor::Of);
        let rest = match self.is_complete(since) {
            // No user changed the object: its plan or the time did.
            true => Actor::Tenantry,
            false => self.missing(),
        };
        direct.or_else(indirect).unwrap_or(StateActor::Of(rest))
    }

    /// Who put other entitlements in force. `since` is the generation at which they were recorded last; `renamed`: the spec
    /// names another plan. None: the content of the plan changed.
    pub fn of_entitlements(&self, since: Option<i64>, renamed: bool) -> Option<Actor> {
        let since = since.filter(|since| *since <= self.generation).unwrap_or(self.generation - 1);
        match renamed {
            true => Some(self.last(&["plan", "trial"])),
            false => self.newest(&["plan", "limits", "modules"], since),
        }
    }
}

/// The actor of a change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateActor {
    /// By the Tenant.
    Of(Actor),
    /// By a hold, as it was recorded.
    Recorded(String),
}

impl fmt::Display for StateActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(actor) => actor.fmt(f),
            Self::Recorded(actor) => f.write_str(actor),
        }
    }
}

#[cfg(test)]
mod tests;
