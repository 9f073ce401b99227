//! Whether a column of another type still holds every value that it held.

/// A type as `format_type` writes it, such as `numeric(10,2)` or `character varying(20)[]`.
#[derive(Debug, PartialEq, Eq)]
struct ColumnType<'a> {
    name: String,
    sizes: Vec<i64>,
    array: &'a str,
}

fn parse(text: &str) -> ColumnType<'_> {
    let (base, array) = text.split_once('[').map_or((text, ""), |(base, _)| (base, &text[base.len()..]));
    let Some((before, rest)) = base.split_once('(') else {
        return ColumnType { name: base.to_owned(), sizes: Vec::new(), array };
    };
    let (inside, after) = rest.split_once(')').unwrap_or((rest, ""));
    let sizes = inside.split(',').map(|size| size.trim().parse().unwrap_or(0)).collect();
    ColumnType { name: format!("{before}{after}"), sizes, array }
}

/// The integers, smallest first, with their digits.
const INTEGERS: [(&str, i64); 3] = [("smallint", 5), ("integer", 10), ("bigint", 19)];

/// Whether every value of one type is one of another, with the same meaning. The same type is.
pub(super) fn is_widening(from: &str, to: &str) -> bool {
    if from == to {
        return true;
    }
    let (from, to) = (parse(from), parse(to));
    if from.array != to.array {
        return false;
    }
    let integer = |name: &str| INTEGERS.iter().position(|(known, _)| *known == name);
    let is_text = |name: &str| name == "text" || name.ends_with("citext") || name == "character varying";
    let length = |of: &ColumnType<'_>| of.sizes.first().copied();
    match (from.name.as_str(), to.name.as_str()) {
        (small, large) if integer(small).is_some() && integer(large).is_some() => {
            integer(small) < integer(large)
        }
        (small, "numeric") if integer(small).is_some() => {
            let digits = integer(small).map_or(0, |index| INTEGERS[index].1);
            digits_before_the_point(&to).is_none_or(|most| most >= digits)
        }
        ("real", "double precision") => true,
        ("numeric", "numeric") => match (digits_before_the_point(&from), digits_before_the_point(&to)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(before), Some(after)) => after >= before && scale(&to) >= scale(&from),
        },
        ("character varying" | "character", "character varying") => match (length(&from), length(&to)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(before), Some(after)) => after >= before,
        },
        ("character varying" | "character", name) => is_text(name),
        ("text", "character varying") => to.sizes.is_empty(),
        ("text", name) => is_text(name),
        ("bit varying", "bit varying") | ("bit", "bit varying") => {
            length(&to).is_none_or(|after| length(&from).is_some_and(|before| after >= before))
        }
        // Times with fewer digits of a second.
        (before, after) if before == after && (before.starts_with("time") || before == "interval") => {
            length(&to).is_none_or(|after| length(&from).is_some_and(|before| after >= before))
        }
        ("date", "timestamp without time zone") => true,
        _ => false,
    }
}

fn digits_before_the_point(numeric: &ColumnType<'_>) -> Option<i64> {
    numeric.sizes.first().map(|precision| precision - scale(numeric))
}

fn scale(numeric: &ColumnType<'_>) -> i64 {
    numeric.sizes.get(1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_is_known_from_narrowing() {
        for (from, to) in [
            ("integer", "bigint"),
            ("smallint", "numeric"),
            ("integer", "numeric(12,2)"),
            ("real", "double precision"),
            ("numeric(10,2)", "numeric(12,2)"),
            ("numeric(10,2)", "numeric"),
            ("character varying(20)", "character varying(30)"),
            ("character varying(20)", "text"),
            ("character(2)", "character varying(2)"),
            ("text", "citext"),
            ("text", "character varying"),
            ("character varying", "public.citext"),
            ("integer[]", "bigint[]"),
            ("timestamp(3) with time zone", "timestamp with time zone"),
            ("date", "timestamp without time zone"),
            ("mood", "mood"),
        ] {
            assert!(is_widening(from, to), "{from} to {to}");
        }
        for (from, to) in [
            ("bigint", "integer"),
            ("bigint", "numeric(12,2)"),
            ("double precision", "real"),
            ("numeric", "numeric(10,2)"),
            ("numeric(10,2)", "numeric(10,3)"),
            ("numeric(10,2)", "integer"),
            ("text", "character varying(10)"),
            ("character varying(20)", "character varying(10)"),
            ("text", "integer"),
            ("integer", "text"),
            ("integer[]", "integer"),
            ("jsonb", "json"),
            ("timestamp with time zone", "timestamp(0) with time zone"),
            ("timestamp with time zone", "timestamp without time zone"),
            ("bytea", "text"),
        ] {
            assert!(!is_widening(from, to), "{from} to {to}");
        }
    }
}
