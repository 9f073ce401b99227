//! Who changed an object: the user whom the API server authenticated, as admission policies of the chart record it in an
//! annotation. Only a Kubernetes of 1.36 or newer does; docs/actors.md has the format.
//!
//! Each line of the annotation is one change of `spec`, the newest first: the generation that it gave the object, the fields
//! that differed (`*`: all, or not known which), and the user. An entry belongs to one generation, so that a change that was
//! overwritten before the operator saw it is still that of its user.

pub mod stamp;

use std::fmt;

use super::access::evaluate::{AccessEvaluation, RestrictionCause};

/// The field of a Tenant's spec that says which state is wanted.
const STATE: &str = "state";

/// What changes a suspension that lasts: how strict it is, and why it is said to be.
const SUSPENSION_FIELDS: [&str; 2] = ["suspension", "stateReason"];

/// Other fields on which a tenant's access depends.
const ACCESS_FIELDS: [&str; 5] = ["suspension", "trial", "validity", "gates", "plan"];

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
    /// A deletion leaves no annotation, and no webhook records it.
    Deletion,
    /// The webhook that records deletions was not reached, or not the registry by it.
    NoWebhook,
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
            Self::NoWebhook => "webhook not reached",
            Self::Annotation => "annotation",
        }
    }
}

impl Actor {
    /// The user who set an annotation that requests something.
    pub fn by_annotation() -> Self {
        Self::Unknown(UnknownActor::Annotation)
    }

    /// The user who deleted an object, if the registry has no record of it. `webhook`: it is recorded by the webhook, where
    /// that is reached.
    pub fn of_deletion(webhook: bool) -> Self {
        Self::Unknown(if webhook { UnknownActor::NoWebhook } else { UnknownActor::Deletion })
    }
}

impl fmt::Display for Actor {
    /// As it is recorded. A user with a name that could be mistaken for one of ours is quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) if is_deceptive(name) => write!(f, "{name:?}"),
            Self::User(name) => f.write_str(name),
            Self::Tenantry => f.write_str(TENANTRY),
            Self::Unknown(why) => write!(f, "{UNKNOWN} ({})", why.as_str()),
        }
    }
}

/// Whether a user's name, read by a person, could be one of ours, or has invisible characters.
fn is_deceptive(name: &str) -> bool {
    let letters: String = name.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let is_hidden = |c: char| c.escape_debug().to_string().starts_with("\\u");
    letters == TENANTRY
        || letters.starts_with(UNKNOWN)
        || name.trim().len() < name.len()
        || name.chars().any(is_hidden)
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

    /// The generation that a line begins with.
    fn generation_of(line: &str) -> Option<i64> {
        line.split(' ').next()?.parse().ok()
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
        self.newest_change(fields, since).map(|change| Actor::User(change.user.clone()))
    }

    fn newest_change(&self, fields: &[&str], since: i64) -> Option<&SpecChange> {
        let touching = |change: &&SpecChange| {
            change.generation > since && fields.iter().any(|field| change.touches(field))
        };
        self.list.iter().find(touching)
    }

    /// Whether these two fields were changed last by one change; none if that is not recorded.
    pub fn are_of_one_change(&self, one: &str, other: &str) -> Option<bool> {
        let last = |field| self.newest_change(&[field], 0).map(|change| change.generation);
        last(one).zip(last(other)).map(|(one, other)| one == other)
    }

    /// The generations after one that are known to have changed the spec, and of which no user is recorded: the list has
    /// later ones only.
    pub fn gap(&self, since: i64) -> Option<(i64, i64)> {
        let first = self.list.last()?.generation;
        (first > since + 1).then_some((since + 1, first - 1))
    }

    /// Who last changed one of these fields.
    pub fn last(&self, fields: &[&str]) -> Actor {
        self.newest(fields, 0).unwrap_or(self.missing())
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
    /// A date that passed is the operator's, even if a user wrote it. A change of a reason alone leads to no other state, and
    /// a change that is not recorded may have been the cause wherever the field that decides was not seen to change.
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
        let by_hold = || hold.map(|hold| StateActor::Recorded(hold.to_owned()));
        let restricts =
            |cause: &RestrictionCause| evaluation.restrictions.iter().any(|one| one.cause == *cause);
        let (is_suspended, is_free) =
            (restricts(&RestrictionCause::SpecState), evaluation.restrictions.is_empty());
        let by_state = || self.newest(&[STATE], since).map(StateActor::Of);
        let direct = match is_suspended || is_free {
            true => by_state().or_else(by_hold),
            false => by_hold(),
        };
        if let Some(direct) = direct {
            return direct;
        }
        let indirect = match is_suspended {
            true => self.newest_of_suspension(since),
            false => self.newest(&ACCESS_FIELDS, since).or_else(|| self.newest(&[STATE], since)),
        };
        // A field that follows may have changed for nothing; one that is not recorded may have decided.
        let known = self.is_complete(since) || self.list.is_empty();
        StateActor::Of(match indirect.filter(|_| known) {
            Some(actor) => actor,
            // No user changed the object: its plan or the time did.
            None if self.is_complete(since) => Actor::Tenantry,
            None => self.missing(),
        })
    }

    /// The last change of a suspension that lasts. A reason that was given with another slug is the reason of that.
    fn newest_of_suspension(&self, since: i64) -> Option<Actor> {
        let changes = self.list.iter().filter(|change| change.generation > since);
        let of_suspension = |change: &&SpecChange| {
            change.touches(SUSPENSION_FIELDS[0])
                || change.touches(SUSPENSION_FIELDS[1]) && !change.touches("slug")
        };
        changes.into_iter().find(of_suspension).map(|change| Actor::User(change.user.clone()))
    }

    /// Who put other entitlements in force. `since` is the generation at which they were recorded last; `renamed`: another
    /// plan is in force. None: the Tenant did not change, its plan's content or its account did.
    pub fn of_entitlements(&self, since: Option<i64>, renamed: bool) -> Option<Actor> {
        let since = since.filter(|since| *since <= self.generation).unwrap_or(self.generation - 1);
        let fields: &[&str] = if renamed { &["plan", "trial"] } else { &["plan", "limits", "modules"] };
        let missing = || Some(self.missing()).filter(|_| renamed && !self.is_complete(since));
        self.newest(fields, since).or_else(missing)
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
