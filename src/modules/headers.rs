//! The headers of a file: comments at its top, `-- tenantry: <name> <value>`, that say how it is applied.

use super::statements::{Parts, parts, position_of};

/// The longest timeout: a day.
const LONGEST: i64 = 86_400_000;

/// The units of a timeout, as PostgreSQL writes them, in milliseconds.
const UNITS: [(&str, i64); 4] = [("ms", 1), ("min", 60_000), ("h", 3_600_000), ("s", 1000)];

/// How a file is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Each statement is committed by itself.
    pub no_transaction: bool,
    /// The time that a statement waits for a lock, in milliseconds.
    pub lock_timeout: Option<i32>,
    /// The time that a statement takes, in milliseconds.
    pub statement_timeout: Option<i32>,
    /// The checksums of the files that it corrects, in hexadecimal.
    pub replaces: Vec<String>,
}

/// A header that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HeaderError {
    /// The line in the file, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Headers {
    /// Reads the headers of a file.
    ///
    /// # Errors
    /// The first header that is unknown, has a wrong value, or does not stand before the first statement.
    pub fn of(sql: &str) -> Result<Self, HeaderError> {
        let mut headers = Self::default();
        let Parts { comments, .. } = parts(sql);
        for comment in comments {
            let text = comment.text.trim();
            // The form of the first releases.
            if let Some(checksum) = text.strip_prefix("replaces:").filter(|_| comment.at_the_top) {
                headers.replaces.push(checksum.trim().to_owned());
                continue;
            }
            let Some((name, header)) = text.split_once(':') else { continue };
            if !name.trim().eq_ignore_ascii_case("tenantry") {
                continue;
            }
            let result = if comment.at_the_top {
                headers.add(header.trim())
            } else {
                Err("a header stands before the first statement of the file: move it there".to_owned())
            };
            if let Err(message) = result {
                let (line, column) = position_of(sql, comment.start);
                return Err(HeaderError { line, column, message });
            }
        }
        Ok(headers)
    }

    fn add(&mut self, header: &str) -> Result<(), String> {
        let (name, value) = header.split_once(char::is_whitespace).unwrap_or((header, ""));
        let value = value.trim();
        match name {
            "no-transaction" if value.is_empty() => self.no_transaction = true,
            "no-transaction" => return Err(format!("header no-transaction has no value: remove {value:?}")),
            "lock-timeout" => self.lock_timeout = Some(timeout(name, value)?),
            "statement-timeout" => self.statement_timeout = Some(timeout(name, value)?),
            "replaces" if is_checksum(value) => self.replaces.push(value.to_ascii_lowercase()),
            "replaces" => {
                return Err(format!(
                    "header replaces has the checksum of the file that this one corrects, 64 hexadecimal digits as in \
                     the message, not {value:?}"
                ));
            }
            _ => {
                return Err(format!(
                    "unknown header {name:?}: there are no-transaction, lock-timeout, statement-timeout and replaces; \
                     an ordinary comment does not begin with `tenantry:`"
                ));
            }
        }
        Ok(())
    }
}

fn is_checksum(value: &str) -> bool {
    value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn timeout(name: &str, value: &str) -> Result<i32, String> {
    let parse = || {
        let (number, factor) =
            UNITS.iter().find_map(|(unit, factor)| Some((value.strip_suffix(unit)?, *factor)))?;
        let millis = number.trim().parse::<i64>().ok()?.checked_mul(factor)?;
        i32::try_from(millis).ok().filter(|_| (1..=LONGEST).contains(&millis))
    };
    parse().ok_or_else(|| {
        format!("header {name} has a time from 1ms to 24h with its unit (ms, s, min or h), such as 5s, not {value:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_from_the_top_of_a_file() {
        let checksum = "A".repeat(64);
        let sql = format!(
            "-- Adds an index.\n\n-- tenantry: no-transaction\n--tenantry:lock-timeout  5s\n/* more */\n\
             -- tenantry: statement-timeout 10min\n-- tenantry: replaces {checksum}\n-- replaces: abc\nSELECT 1"
        );
        let headers = Headers::of(&sql).unwrap();
        assert!(headers.no_transaction);
        assert_eq!((headers.lock_timeout, headers.statement_timeout), (Some(5000), Some(600_000)));
        assert_eq!(headers.replaces, [checksum.to_lowercase(), "abc".into()]);
        assert_eq!(Headers::of("SELECT 1; -- replaces: x"), Ok(Headers::default()));
        // In a text, it is no header.
        assert_eq!(Headers::of("SELECT '\n-- tenantry: x\n'"), Ok(Headers::default()));
    }

    #[test]
    fn wrong_header_is_refused_with_its_place() {
        for (header, expected) in [
            ("no-transactions", "unknown header \"no-transactions\""),
            ("no-transaction please", "has no value"),
            ("lock-timeout", "such as 5s, not \"\""),
            ("lock-timeout 5", "such as 5s, not \"5\""),
            ("lock-timeout 0s", "from 1ms"),
            ("lock-timeout 25h", "from 1ms to 24h"),
            ("statement-timeout soon", "header statement-timeout"),
            ("replaces abc", "64 hexadecimal digits"),
            ("", "unknown header"),
        ] {
            let error = Headers::of(&format!("-- A wiki.\n  -- tenantry: {header}\nSELECT 1")).unwrap_err();
            assert_eq!((error.line, error.column), (2, 3), "{header}");
            assert!(error.message.contains(expected), "{header}: {error}");
        }
        let error = Headers::of("SELECT 1;\n-- tenantry: no-transaction").unwrap_err();
        assert!(error.message.contains("before the first statement") && error.line == 2, "{error}");
    }
}
