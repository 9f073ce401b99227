//! The field at a position of a JSON text.

use std::fmt::Write;

/// How many levels of a field are named.
const LEVELS: usize = 6;

/// An object or array that encloses the position.
enum Level<'a> {
    /// The key whose value is read.
    Object(&'a str),
    /// The index of the item.
    Array(usize),
}

/// The field that ends at a position (from 1, as `serde_json` counts lines, and bytes in a line), as `spec.admins[1].email`.
/// In the managed fields, which repeat the names of all others, it is the one that they are about. None outside of any.
pub fn field_at(json: &str, line: usize, column: usize) -> Option<String> {
    let start: usize = json.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let read = json.as_bytes().get(..json.len().min(start + column))?;
    let mut levels = levels(json, read);
    if levels.iter().any(|level| matches!(level, Level::Object("managedFields"))) {
        levels = levels.iter().filter_map(managed).collect();
    }
    let mut field = String::new();
    for level in levels.iter().take(LEVELS) {
        match level {
            Level::Object("") => {}
            Level::Object(key) if field.is_empty() => field.push_str(key),
            Level::Object(key) => drop(write!(field, ".{key}")),
            Level::Array(index) => drop(write!(field, "[{index}]")),
        }
    }
    if levels.len() > LEVELS {
        field.push_str(" …");
    }
    (!field.is_empty()).then_some(field)
}

/// A field that the managed fields name.
fn managed<'a>(level: &Level<'a>) -> Option<Level<'a>> {
    match level {
        Level::Object(key) => key.strip_prefix("f:").map(Level::Object),
        Level::Array(_) => None,
    }
}

fn levels<'a>(json: &'a str, read: &[u8]) -> Vec<Level<'a>> {
    let mut levels = Vec::new();
    let mut position = 0;
    // The string that was read last is a key if a colon follows.
    let mut text = "";
    while let Some(byte) = read.get(position) {
        position += 1;
        match byte {
            b'{' => levels.push(Level::Object("")),
            b'[' => levels.push(Level::Array(0)),
            b'}' | b']' => drop(levels.pop()),
            b':' => {
                if let Some(Level::Object(key)) = levels.last_mut() {
                    *key = text;
                }
            }
            b',' => {
                if let Some(Level::Array(index)) = levels.last_mut() {
                    *index += 1;
                }
            }
            b'"' => {
                let end = end_of_string(read, position);
                text = json.get(position..end).unwrap_or_default();
                position = end + 1;
            }
            _ => {}
        }
    }
    levels
}

/// The position of the quote that ends a string.
fn end_of_string(read: &[u8], start: usize) -> usize {
    let mut escaped = false;
    for (position, byte) in read.iter().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return position,
            _ => {}
        }
    }
    read.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_named_with_those_around_it() {
        let json = r#"{"kind":"x","spec":{"a\"{":[1,{"b":"}]"}],"late":"9"},"status":{}}"#;
        let at = |text: &str| {
            let end = json.find(text).unwrap() + text.len();
            field_at(json, 1, end)
        };
        assert_eq!(at(r#"":[1"#).as_deref(), Some(r#"spec.a\"{[0]"#));
        assert_eq!(at(r#""b":"}]""#).as_deref(), Some(r#"spec.a\"{[1].b"#));
        assert_eq!(at(r#""late":"9""#).as_deref(), Some("spec.late"));
        assert_eq!(at(r#""9"}"#).as_deref(), Some("spec"));
        assert_eq!(field_at(json, 1, 1), None);
        assert_eq!(field_at("{\n  \"spec\": {\n    \"a\": 1\n  }\n}", 3, 10).as_deref(), Some("spec.a"));
    }

    #[test]
    fn deep_field_is_shortened_and_managed_fields_name_another() {
        let deep = r#"{"a":"#.repeat(9);
        assert_eq!(field_at(&deep, 1, deep.len()).as_deref(), Some("a.a.a.a.a.a …"));
        let managed = r#"{"metadata":{"managedFields":[{"fieldsV1":{"f:spec":{"f:settings":{".":{"#;
        assert_eq!(field_at(managed, 1, managed.len()).as_deref(), Some("spec.settings"));
        let unnamed = r#"{"metadata":{"managedFields":[{"fieldsV1":{".":{"#;
        assert_eq!(field_at(unnamed, 1, unnamed.len()), None);
    }
}
