//! What a visit tells of limits: the amounts that are shown, and the condition `WithinLimits`. Pure.

use super::{conditions::Told, visit::Visit};
use crate::{
    api::{
        conditions::{
            ConditionStatus::{False, True, Unknown},
            WITHIN_LIMITS, find_condition, reason,
        },
        plan::LimitValue,
        tenant_status::TenantStatus,
    },
    domain::{
        hold::QUOTA,
        limits::{Amounts, Entitlements, Limits, STORAGE_BYTES},
        quota::{self, Rung, Verdict, Warned},
    },
};

/// What is in force, and what is used of it, as it is shown.
struct Seen<'v> {
    entitlements: &'v Entitlements,
    usage: Amounts,
    warned: Warned,
}

fn seen<'v>(visit: &'v Visit<'_>) -> Option<Seen<'v>> {
    let row = visit.row.as_ref()?;
    let entitlements = row.entitlements.as_ref()?;
    let warned = warned(&visit.before);
    let before = visit.before.usage.as_ref().map(|usage| &usage.amounts);
    let measured = limited(&row.usage, &entitlements.limits);
    let usage = quota::shown(before.unwrap_or(&Amounts::new()), &measured, &entitlements.limits, &warned);
    Some(Seen { entitlements, usage, warned })
}

/// Those amounts that a limit is about.
fn limited(amounts: &Amounts, limits: &Limits) -> Amounts {
    let limited = amounts.iter().filter(|(name, _)| limits.contains_key(*name));
    limited.map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// The amounts for the status, where something was measured.
pub fn usage(visit: &Visit<'_>) -> Option<Amounts> {
    seen(visit).map(|seen| seen.usage).filter(|usage| !usage.is_empty())
}

/// The limits that the status says are in force.
pub fn in_force(status: &TenantStatus) -> Limits {
    let maximum = |value: &LimitValue| match value {
        LimitValue::Number(number) => Some(*number),
        LimitValue::Word(_) => None,
    };
    status.limits.iter().map(|(name, value)| (name.clone(), maximum(value))).collect()
}

/// Whether the status says that the tenant is held as its storage was full.
pub fn is_held(status: &TenantStatus) -> bool {
    status.holds.iter().any(|hold| hold.name == QUOTA)
}

/// Whether these amounts, measured just now, lead to a visit: they would be shown, or storage is full, or has room again.
pub fn is_news(status: &TenantStatus, measured: &Amounts) -> bool {
    let limits = in_force(status);
    let before = status.usage.as_ref().map(|usage| usage.amounts.clone()).unwrap_or_default();
    let now = before.clone().into_iter().chain(limited(measured, &limits)).collect();
    // A tenant whose limit was changed is visited for that.
    let held = is_held(status).then(|| limits.get(STORAGE_BYTES).copied().flatten().unwrap_or(i64::MAX));
    quota::shown(&before, &now, &limits, &warned(status)) != before
        || quota::verdict(held, &limits, measured) != Verdict::Keep
}

/// How far up to its limits a tenant is, of those that it is near, or beyond: by name, with the share that is used.
pub fn near(status: &TenantStatus, measured: &Amounts) -> Vec<(String, f64)> {
    let limits = in_force(status);
    let ratio = |(_, name, used, maximum): (Rung, &str, i64, i64)| {
        #[expect(clippy::cast_precision_loss, reason = "a share is no exact number")]
        let ratio = used as f64 / maximum.max(1) as f64;
        (name.to_owned(), ratio)
    };
    quota::rungs(&limits, measured, &warned(status)).into_iter().map(ratio).collect()
}

/// The limits that a status tells of, as [`within_limits`] writes them: `name: so much in use`.
fn warned(status: &TenantStatus) -> Warned {
    let told = find_condition(&status.conditions, WITHIN_LIMITS);
    let parts = told.iter().flat_map(|told| told.message.split("; "));
    let named = parts.filter_map(|part| part.split_once(": ")).map(|(name, _)| name);
    named.filter(|name| status.limits.contains_key(*name)).map(str::to_owned).collect()
}

/// The limits of which a status tells something worse than the one before it.
pub fn worse(before: &TenantStatus, after: &TenantStatus) -> Vec<String> {
    let rung = |status: &TenantStatus, name: &str, warned: &Warned| {
        let used = status.usage.as_ref().and_then(|usage| usage.amounts.get(name));
        match used.map_or(Rung::Fine, |used| quota::rung_of(name, *used, &in_force(status), warned)) {
            // Who takes the last place and gives it back all day long is told of once.
            Rung::Reached => Rung::Near,
            rung => rung,
        }
    };
    let told = (warned(before), warned(after));
    let worse = |name: &&String| rung(after, name, &told.1) > rung(before, name, &told.0);
    after.limits.keys().filter(worse).cloned().collect()
}

/// Whether the tenant is within its limits; nothing while none are in force.
pub fn within_limits(visit: &Visit<'_>) -> Option<Told> {
    let Seen { entitlements, usage, warned } = seen(visit)?;
    let rungs = quota::rungs(&entitlements.limits, &usage, &warned);
    let held = visit.row.as_ref().is_some_and(|row| row.holds.iter().any(|hold| hold.quota().is_some()));
    let numbers: Vec<String> = rungs
        .iter()
        .map(|(rung, name, used, maximum)| {
            let percent = if *maximum > 0 { i128::from(*used) * 100 / i128::from(*maximum) } else { 100 };
            match rung {
                Rung::Over => format!("{name}: {used} in use, {maximum} allowed"),
                Rung::Reached => format!("{name}: all {maximum} in use"),
                Rung::Near | Rung::Fine => format!("{name}: {used} of {maximum} in use ({percent} %)"),
            }
        })
        .collect();
    let worst = rungs.first().map(|(rung, ..)| *rung);
    let (status, reason, mut message) = match worst {
        _ if held => (
            False,
            reason::LIMIT_EXCEEDED,
            format!(
                "{}storage was used up: rows can be read and deleted, until there is room again",
                list(&numbers)
            ),
        ),
        Some(Rung::Over) => (
            False,
            reason::LIMIT_EXCEEDED,
            format!(
                "{}what is there can be read, changed and deleted, and nothing more is let in",
                list(&numbers)
            ),
        ),
        Some(_) => (True, reason::NEAR_LIMIT, numbers.join("; ")),
        None if usage.is_empty() => {
            (Unknown, reason::NOT_MEASURED, "nothing that the plan limits was measured yet".to_owned())
        }
        None => (True, reason::WITHIN_LIMITS, "less than 80 % of every limit is in use".to_owned()),
    };
    if !visit.without_effect.is_empty() {
        message.push_str(&format!(
            "; spec.limits has no effect on {}: plan {} does not leave it to the tenant",
            visit.without_effect.join(", "),
            entitlements.plan
        ));
    }
    Some(Told { type_: WITHIN_LIMITS, status, reason, message })
}

fn list(numbers: &[String]) -> String {
    if numbers.is_empty() { String::new() } else { format!("{}; ", numbers.join("; ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::{tenant::Tenant, tenant_status::Usage},
        domain::{observed::RegistryStatus, plan::Presence},
        registry::TenantRow,
    };

    fn told(usage: &[(&str, i64)], before: Option<(&str, &[(&str, i64)])>) -> (Told, Option<Amounts>) {
        let tenant: Tenant = serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
            "spec": {"slug": "acme", "displayName": "Acme", "plan": "free"},
        }))
        .unwrap();
        let amounts = |amounts: &[(&str, i64)]| -> Amounts {
            amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
        };
        let mut status = TenantStatus::default();
        if let Some((reason, shown)) = before {
            let at = jiff::Timestamp::UNIX_EPOCH;
            let told = crate::api::conditions::condition(WITHIN_LIMITS, True, reason, "users: 80", None, at);
            status.conditions.push(told);
            status.limits = [("users".to_owned(), LimitValue::Number(100))].into();
            status.usage = Some(Usage { measured_at: None, amounts: amounts(shown) });
        }
        let mut visit = Visit::new(&tenant, status, Presence::Living);
        let limits = [("users".to_owned(), Some(100)), ("seats".to_owned(), None)].into();
        visit.row = Some(TenantRow {
            entitlements: Some(Entitlements { plan: "free".into(), limits, ..Entitlements::default() }),
            usage: amounts(usage),
            ..TenantRow::example(RegistryStatus::Active)
        });
        (within_limits(&visit).unwrap(), super::usage(&visit))
    }

    #[test]
    fn the_condition_says_how_much_is_used_of_what() {
        let say = |usage: &[(&str, i64)]| {
            let told = told(usage, None).0;
            (told.status, told.reason, told.message)
        };
        assert_eq!((say(&[]).0, say(&[]).1), (Unknown, reason::NOT_MEASURED));
        assert_eq!(say(&[("users", 79), ("seats", 9999)]).1, reason::WITHIN_LIMITS);
        assert_eq!(
            say(&[("users", 80)]),
            (True, reason::NEAR_LIMIT, "users: 80 of 100 in use (80 %)".into())
        );
        assert_eq!(say(&[("users", 100)]), (True, reason::NEAR_LIMIT, "users: all 100 in use".into()));
        let over = say(&[("users", 120)]);
        assert_eq!((over.0, over.1), (False, reason::LIMIT_EXCEEDED));
        assert!(over.2.starts_with("users: 120 in use, 100 allowed; "), "{}", over.2);
    }

    #[test]
    fn what_is_shown_and_told_is_no_news_and_each_limit_is_told_of_by_itself() {
        let status = |usage: &[(&str, i64)], message: &str| {
            let at = jiff::Timestamp::UNIX_EPOCH;
            let mut status = TenantStatus::default();
            let told =
                crate::api::conditions::condition(WITHIN_LIMITS, True, reason::NEAR_LIMIT, message, None, at);
            status.conditions.push(told);
            let limits = [("users", 5), ("storageBytes", 100 << 20)];
            status.limits = limits.map(|(name, most)| (name.to_owned(), LimitValue::Number(most))).into();
            let amounts = usage.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
            status.usage = Some(Usage { measured_at: None, amounts });
            status
        };
        let amounts = |users, storage: i64| {
            Amounts::from([("users".to_owned(), users), ("storageBytes".to_owned(), storage << 20)])
        };
        let full = status(&[("users", 5), ("storageBytes", 10 << 20)], "users: all 5 in use");
        assert!(!is_news(&full, &amounts(5, 10)));
        // A part that was not measured is no news either.
        assert!(!is_news(&full, &Amounts::from([("users".to_owned(), 5)])));
        assert!(is_news(&full, &amounts(5, 80)) && is_news(&full, &amounts(4, 10)));
        assert!(is_news(&full, &amounts(5, 100)), "storage is full");
        let fuller =
            status(&[("users", 5), ("storageBytes", 80 << 20)], "users: all 5 in use; storageBytes: 80 %");
        assert_eq!(worse(&full, &fuller), ["storageBytes"]);
        assert_eq!(worse(&fuller, &full), [""; 0]);
        let one_less = status(&[("users", 4), ("storageBytes", 10 << 20)], "users: 4 of 5 in use");
        assert_eq!(worse(&one_less, &full), [""; 0]);
        assert_eq!(worse(&status(&[("users", 3)], ""), &one_less), ["users"]);
    }

    #[test]
    fn what_was_said_stays_until_it_is_worth_another_word() {
        // Within 5 %, and on the same rung: also below 80 %, once somebody was warned.
        let (told_again, shown) = told(&[("users", 78)], Some((reason::NEAR_LIMIT, &[("users", 80)])));
        assert_eq!((told_again.reason, shown.unwrap()["users"]), (reason::NEAR_LIMIT, 80));
        let (told_fine, shown) = told(&[("users", 74)], Some((reason::NEAR_LIMIT, &[("users", 76)])));
        assert_eq!((told_fine.reason, shown.unwrap()["users"]), (reason::WITHIN_LIMITS, 74));
        // What no limit is about is not shown.
        assert_eq!(told(&[("rows", 5)], None).1, None);
    }
}
