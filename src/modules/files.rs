//! A source's files as migrations. Pure: what was read, wherever it comes from.

use super::{headers::Headers, module::Migration};
use crate::domain::module_refusal::ModuleRefusal;

/// The largest file.
const MAX_BYTES: usize = 1 << 20;

/// A file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is, for messages: `ConfigMap "billing-1"`.
    pub origin: String,
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The files of a source, by number, without gaps.
///
/// # Errors
/// The first file, by number, that is not right.
pub fn migrations(origin: &str, files: &[SourceFile]) -> Result<Vec<Migration>, ModuleRefusal> {
    if files.is_empty() {
        return Err(ModuleRefusal::NoFiles { origin: origin.to_owned() });
    }
    let mut numbered = Vec::new();
    for file in files {
        let refused = || ModuleRefusal::FileName { origin: file.origin.clone(), file: file.name.clone() };
        numbered.push((number(&file.name).ok_or_else(refused)?, file));
    }
    numbered.sort_by(|(a, first), (b, second)| {
        (a, &first.origin, &first.name).cmp(&(b, &second.origin, &second.name))
    });
    let newest = numbered.last().map_or(0, |(number, _)| *number);
    for pair in numbered.windows(2) {
        if pair[0].0 == pair[1].0 {
            let named = |file: &SourceFile| format!("{} ({})", file.name, file.origin);
            let (first, second) = (named(pair[0].1), named(pair[1].1));
            return Err(ModuleRefusal::DuplicateVersion { first, second, free: newest + 1 });
        }
    }
    let mut migrations = Vec::new();
    for ((version, file), wanted) in numbered.into_iter().zip(1..) {
        if version != wanted {
            return Err(ModuleRefusal::Gap { missing: wanted, file: file.name.clone() });
        }
        let sql = text(file)?;
        Headers::of(&sql).map_err(|error| ModuleRefusal::Header {
            file: file.name.clone(),
            line: error.line,
            column: error.column,
            why: error.message,
        })?;
        migrations.push(Migration { version, file: file.name.clone().into(), sql: sql.into() });
    }
    Ok(migrations)
}

/// The number of a file named `NNNN_name.sql`.
pub(super) fn number(name: &str) -> Option<i32> {
    let (digits, rest) = name.split_at_checked(4)?;
    let stem = rest.strip_prefix('_')?.strip_suffix(".sql")?;
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
    let is_valid =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && !stem.is_empty() && stem.chars().all(is_inner);
    digits.parse().ok().filter(|number| is_valid && *number > 0)
}

fn text(file: &SourceFile) -> Result<String, ModuleRefusal> {
    let refused = |why: &str| ModuleRefusal::FileUnreadable {
        origin: file.origin.clone(),
        file: file.name.clone(),
        why: why.to_owned(),
    };
    if file.bytes.len() > MAX_BYTES {
        return Err(refused("it is larger than 1 MiB"));
    }
    let text = String::from_utf8(file.bytes.clone()).map_err(|_| refused("it is not UTF-8"))?;
    // PostgreSQL cannot receive it.
    if text.contains('\0') {
        return Err(refused("it has a NUL character"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<SourceFile> {
        let file = |name: &&str| {
            let (origin, name) = name.split_once(':').unwrap_or(("ConfigMap \"a\"", name));
            SourceFile { origin: origin.to_owned(), name: name.to_owned(), bytes: b"SELECT 1".to_vec() }
        };
        names.iter().map(file).collect()
    }

    fn refusal(names: &[&str]) -> (&'static str, String) {
        let refusal = migrations("ConfigMap \"a\"", &files(names)).unwrap_err();
        (refusal.reason().as_str(), refusal.to_string())
    }

    #[test]
    fn files_of_several_config_maps_are_one_module() {
        let found = migrations("x", &files(&["b:0002_b.sql", "a:0001_a.sql", "b:0003_c-d.e.sql"])).unwrap();
        let names: Vec<(i32, &str)> = found.iter().map(|file| (file.version, file.file.as_ref())).collect();
        assert_eq!(names, [(1, "0001_a.sql"), (2, "0002_b.sql"), (3, "0003_c-d.e.sql")]);
    }

    #[test]
    fn wrong_names_are_refused() {
        for name in [
            "1_a.sql",
            "0000_a.sql",
            "00001_a.sql",
            "0001-a.sql",
            "0001_.sql",
            "0001_A.sql",
            "0001_a.txt",
            "README.md",
            "äöü",
            "+001_a.sql",
        ] {
            let (reason, message) = refusal(&["0001_a.sql", name]);
            assert_eq!(reason, "InvalidFile", "{name}");
            assert!(
                message.starts_with("ConfigMap \"a\": ") && message.contains("NNNN_name.sql"),
                "{message}"
            );
        }
        assert_eq!(refusal(&[]).0, "NoFiles");
    }

    #[test]
    fn gaps_and_duplicates_are_refused() {
        let (reason, message) = refusal(&["0001_a.sql", "0003_c.sql"]);
        assert_eq!(reason, "VersionGap");
        assert!(message.contains("0003_c.sql follows number 0001"), "{message}");
        assert_eq!(refusal(&["0002_a.sql"]).0, "VersionGap");
        let (reason, message) = refusal(&["a:0001_a.sql", "b:0001_b.sql", "b:0002_c.sql"]);
        assert_eq!(reason, "DuplicateVersion");
        assert_eq!(
            message,
            "0001_a.sql (a) and 0001_b.sql (b) have the same number: give the newer one the next free number, 0003"
        );
    }

    #[test]
    fn unknown_headers_are_refused_with_their_place() {
        let bytes = b"-- A table.\n-- tenantry: no-transactions\nSELECT 1".to_vec();
        let file = SourceFile { origin: "d".into(), name: "0001_a.sql".into(), bytes };
        let refusal = migrations("d", &[file]).unwrap_err();
        assert_eq!(refusal.reason().as_str(), "InvalidFile");
        assert!(refusal.to_string().starts_with("0001_a.sql line 2 column 1: unknown header"), "{refusal}");
    }

    #[test]
    fn files_that_are_no_text_are_refused() {
        for (bytes, why) in
            [(vec![0xff], "not UTF-8"), (vec![b'a', 0], "NUL"), (vec![b' '; MAX_BYTES + 1], "1 MiB")]
        {
            let file = SourceFile { origin: "d".into(), name: "0001_a.sql".into(), bytes };
            let refusal = migrations("d", &[file]).unwrap_err();
            assert_eq!(refusal.reason().as_str(), "InvalidFile");
            assert!(refusal.to_string().contains(why), "{refusal}");
        }
    }
}
