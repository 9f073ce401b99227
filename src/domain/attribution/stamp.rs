//! The line that a change of an object's spec adds to the annotation with its changes, as the admission policies of the chart
//! compute it (`charts/tenantry/templates/_changes.tpl`): on a Kubernetes without them, the webhook writes the same.

use serde_json::{Map, Value};

use super::SpecChange;

/// The longest name of a user that is written as it is, and the parts that are kept of a longer one, in characters.
const LONGEST_NAME: usize = 256;
const HEAD: usize = 128;
const TAIL: usize = 127;

/// The longest annotation whose lines are kept, in characters.
const LONGEST: usize = 8192;

/// How many generations are kept.
const KEPT: i64 = 10;

/// A request that creates or updates an object.
#[derive(Clone, Copy, Debug)]
pub struct ObservedChange<'a> {
    /// The object as it was; none: it is new.
    pub before: Option<&'a Value>,
    /// The object as the request has it.
    pub object: &'a Value,
    /// The user of the request.
    pub user: &'a str,
    /// The annotation.
    pub annotation: &'a str,
}

impl ObservedChange<'_> {
    /// The annotation as the request should have it; none: as it has it already.
    pub fn stamp(&self) -> Option<String> {
        let given = self.annotation_of(self.object);
        let old = self.before.map(|before| self.annotation_of(before)).unwrap_or_default();
        let changed = self.before.is_none_or(|before| before.get("spec") != self.object.get("spec"));
        let wanted = match changed {
            true => self.line_before(old),
            // A request that leaves it out does not remove it.
            false if given.is_empty() => old.to_owned(),
            false => return None,
        };
        (wanted != given).then_some(wanted)
    }

    fn annotation_of<'b>(&self, object: &'b Value) -> &'b str {
        object["metadata"]["annotations"][self.annotation].as_str().unwrap_or_default()
    }

    /// The new line, and the ones that are kept of the old ones.
    fn line_before(&self, old: &str) -> String {
        let generation =
            self.before.map_or(0, |before| before["metadata"]["generation"].as_i64().unwrap_or(0)) + 1;
        let mut lines = vec![format!("{generation} {} {}", self.fields(), short_name(self.user))];
        if is_list(old) {
            let kept = old.split('\n').filter(|line| {
                SpecChange::generation_of(line)
                    .is_some_and(|kept| kept < generation && kept > generation - KEPT)
            });
            lines.extend(kept.map(str::to_owned));
        }
        lines.join("\n")
    }

    /// The fields of the spec that differ, in order; `*` for a new object, or where none is known.
    fn fields(&self) -> String {
        let specs = (self.before.and_then(spec_of), spec_of(self.object));
        let (Some(before), Some(after)) = specs else { return "*".to_owned() };
        let mut names: Vec<&str> = before
            .keys()
            .chain(after.keys())
            .filter(|name| before.get(*name) != after.get(*name))
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() { "*".to_owned() } else { names.join(",") }
    }
}

fn spec_of(object: &Value) -> Option<&Map<String, Value>> {
    object.get("spec")?.as_object()
}

/// Whether a text is one that is written here. What was written before it was protected may be anything.
fn is_list(text: &str) -> bool {
    let is_line = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let (number, fields, user) = (parts.next(), parts.next(), parts.next());
        number.is_some_and(|n| (1..=15).contains(&n.len()) && n.bytes().all(|byte| byte.is_ascii_digit()))
            && fields.is_some_and(|names| {
                !names.is_empty()
                    && names.bytes().all(|byte| byte.is_ascii_alphabetic() || b",*".contains(&byte))
            })
            && user.is_some_and(|user| !user.is_empty())
    };
    text.chars().count() <= LONGEST && text.split('\n').all(is_line)
}

/// The name of a user as it is recorded: on one line, and shortened in its middle if it is long.
pub fn short_name(user: &str) -> String {
    let letters: Vec<char> = user.chars().map(|letter| if letter == '\n' { ' ' } else { letter }).collect();
    if letters.len() <= LONGEST_NAME {
        return letters.into_iter().collect();
    }
    let (head, tail) = (&letters[..HEAD], &letters[letters.len() - TAIL..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ANNOTATION: &str = "tenantry.dev/changes";

    fn object(generation: i64, annotation: Option<&str>, spec: Value) -> Value {
        let annotations = annotation.map(|text| json!({ANNOTATION: text}));
        json!({"metadata": {"generation": generation, "annotations": annotations}, "spec": spec})
    }

    fn stamp(before: Option<&Value>, object: &Value, user: &str) -> Option<String> {
        ObservedChange { before, object, user, annotation: ANNOTATION }.stamp()
    }

    #[test]
    fn new_object_is_that_of_its_creator_whatever_it_says() {
        for given in [None, Some("1 * root")] {
            let new = object(1, given, json!({"plan": "free"}));
            assert_eq!(stamp(None, &new, "alice").as_deref(), Some("1 * alice"));
        }
        // Another plugin called the webhook again.
        assert_eq!(stamp(None, &object(1, Some("1 * alice"), json!({})), "alice"), None);
    }

    #[test]
    fn change_adds_a_line_with_its_fields() {
        let before = object(6, Some("6 state bob\n1 * alice"), json!({"plan": "free", "state": "Active"}));
        let after = object(6, Some("6 state bob\n1 * alice"), json!({"slug": "a", "state": "Active"}));
        let stamped = stamp(Some(&before), &after, "carol").unwrap();
        assert_eq!(stamped, "7 plan,slug carol\n6 state bob\n1 * alice");
        let forged = object(6, Some("9 * root"), json!({"plan": "free", "state": "Suspended"}));
        assert_eq!(stamp(Some(&before), &forged, "carol").unwrap(), "7 state carol\n6 state bob\n1 * alice");
    }

    #[test]
    fn request_without_a_change_removes_nothing_and_adds_nothing() {
        let before = object(2, Some("1 * alice"), json!({"plan": "free"}));
        assert_eq!(stamp(Some(&before), &before, "bob"), None);
        let left_out = object(2, None, json!({"plan": "free"}));
        assert_eq!(stamp(Some(&before), &left_out, "bob").as_deref(), Some("1 * alice"));
        // The validating policy refuses it.
        assert_eq!(stamp(Some(&before), &object(2, Some("2 * root"), json!({"plan": "free"})), "bob"), None);
    }

    #[test]
    fn ten_generations_are_kept_and_no_other_text() {
        let lines = (1..=12).rev().map(|n| format!("{n} plan user-{n}")).collect::<Vec<_>>().join("\n");
        let before = object(12, Some(&lines), json!({"plan": "a"}));
        let after = object(12, Some(&lines), json!({"plan": "b"}));
        let stamped = stamp(Some(&before), &after, "eve").unwrap();
        let generations: Vec<&str> = stamped.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(generations, ["13", "12", "11", "10", "9", "8", "7", "6", "5", "4"]);
        for wrong in ["x", "1 *", "1 * ", "1 pl-an eve", "1234567890123456 * eve", "1 * eve\n"] {
            let before = object(12, Some(wrong), json!({"plan": "a"}));
            assert_eq!(stamp(Some(&before), &after, "eve").unwrap(), "13 plan eve", "{wrong:?}");
        }
    }

    #[test]
    fn long_name_is_shortened_by_characters() {
        assert_eq!(short_name("a\nb"), "a b");
        assert_eq!(short_name(&"ü".repeat(256)), "ü".repeat(256));
        let long = short_name(&format!("{}{}", "ü".repeat(200), "z".repeat(200)));
        assert_eq!(long, format!("{}…{}", "ü".repeat(128), "z".repeat(127)));
    }
}
