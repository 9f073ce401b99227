//! The part of PostgreSQL's protocol that shows the statements of a session.
//!
//! After the startup every message is a type byte, a length that includes itself, and a body.

use std::collections::HashMap;
use std::fmt;
use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};

/// More than PostgreSQL accepts.
const LONGEST: u32 = 1 << 30;

/// The codes of a first packet that requests encryption; a client continues without it when it is refused.
const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];
const CANCEL: u32 = 80_877_102;

/// A statement on its way to PostgreSQL: a simple query, or one execution of a prepared statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The login of its session.
    pub user: String,
    /// The database of its session.
    pub database: String,
    /// The `application_name` that its session began with; empty when it had none.
    pub application_name: String,
    /// Its SQL; empty for an execution whose prepared statement is not known.
    pub text: String,
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.database)?;
        // In one line, also if its text has several.
        self.text.split_whitespace().try_for_each(|part| write!(f, " {part}"))
    }
}

/// The first packet of a connection.
pub(super) enum Opening {
    /// A request for TLS or GSSAPI.
    Encryption,
    /// A request to cancel the statement of another connection.
    Cancel,
    Session(Session),
}

/// Reads a first packet, which has no type, into `packet`.
pub(super) async fn read_opening(
    reader: &mut (impl AsyncRead + Unpin),
    packet: &mut Vec<u8>,
) -> io::Result<Opening> {
    packet.clear();
    read_body(reader, packet).await?;
    let code = packet.get(4..8).and_then(|code| code.try_into().ok()).map_or(0, u32::from_be_bytes);
    Ok(match code {
        code if ENCRYPTION.contains(&code) => Opening::Encryption,
        CANCEL => Opening::Cancel,
        _ => Opening::Session(Session::new(&packet[8.min(packet.len())..])),
    })
}

/// Reads a complete message into `message`; returns its type, or none at the end of the stream.
pub(super) async fn read_message(
    reader: &mut (impl AsyncBufRead + Unpin),
    message: &mut Vec<u8>,
) -> io::Result<Option<u8>> {
    message.clear();
    if reader.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let kind = reader.read_u8().await?;
    message.push(kind);
    read_body(reader, message).await?;
    Ok(Some(kind))
}

/// Reads the length and the body.
async fn read_body(reader: &mut (impl AsyncRead + Unpin), message: &mut Vec<u8>) -> io::Result<()> {
    let length = reader.read_u32().await?;
    if !(4..=LONGEST).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a message of PostgreSQL's protocol"));
    }
    message.extend(length.to_be_bytes());
    let from = message.len();
    message.resize(from + length as usize - 4, 0);
    reader.read_exact(&mut message[from..]).await.map(|_| ())
}

/// Whether these bytes begin with a complete message.
pub(super) fn begins_with_message(bytes: &[u8]) -> bool {
    match bytes.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes) {
        Some(length) => bytes.len() > length as usize,
        None => false,
    }
}

/// The state of a session, derived from the messages of its client.
#[derive(Debug)]
pub(super) struct Session {
    user: String,
    database: String,
    application_name: String,
    /// The SQL of prepared statements, by their names.
    prepared: HashMap<String, String>,
    /// The SQL of portals, by their names.
    portals: HashMap<String, String>,
}

impl Session {
    fn new(parameters: &[u8]) -> Self {
        let mut texts = Texts(parameters);
        let mut named = HashMap::new();
        while let (Some(name), Some(value)) = (texts.next().filter(|name| !name.is_empty()), texts.next()) {
            named.insert(name, value);
        }
        let mut take = |name| named.remove(name).unwrap_or_default();
        let (user, database, application_name) = (take("user"), take("database"), take("application_name"));
        let database = if database.is_empty() { user.clone() } else { database };
        Self { user, database, application_name, prepared: HashMap::new(), portals: HashMap::new() }
    }

    /// Records a message of the client; returns the statement if it is one.
    pub(super) fn read(&mut self, message: &[u8]) -> Option<Statement> {
        let (kind, body) = (message.first()?, message.get(5..)?);
        let mut texts = Texts(body);
        match kind {
            b'Q' => return Some(self.statement(texts.next().unwrap_or_default())),
            b'P' => {
                let (name, text) = (texts.next()?, texts.next()?);
                self.prepared.insert(name, text);
            }
            b'B' => {
                let (portal, name) = (texts.next()?, texts.next()?);
                let text = self.prepared.get(&name).cloned().unwrap_or_default();
                self.portals.insert(portal, text);
            }
            b'E' => {
                let text = texts.next().and_then(|portal| self.portals.get(&portal).cloned());
                return Some(self.statement(text.unwrap_or_default()));
            }
            b'C' => {
                let (of, name) = body.split_first()?;
                let closed = if *of == b'S' { &mut self.prepared } else { &mut self.portals };
                closed.remove(&Texts(name).next()?);
            }
            _ => {}
        }
        None
    }

    fn statement(&self, text: String) -> Statement {
        Statement {
            user: self.user.clone(),
            database: self.database.clone(),
            application_name: self.application_name.clone(),
            text,
        }
    }
}

/// Texts that end with a zero byte each.
struct Texts<'a>(&'a [u8]);

impl Iterator for Texts<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = &self.0[end + 1..];
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &str) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("short") + 4;
        [&[kind][..], &length.to_be_bytes(), body.as_bytes()].concat()
    }

    #[test]
    fn statements_are_found_by_prepared_name() {
        let mut session = Session::new(b"user\0ada\0application_name\0test\0\0");
        let mut text = |kind, body| session.read(&message(kind, body)).map(|statement| statement.text);
        assert_eq!(text(b'Q', "select 1\0"), Some("select 1".to_owned()));
        assert_eq!(text(b'P', "one\0select 2\0\0\0"), None);
        assert_eq!(text(b'P', "\0select 3\0\0\0"), None);
        assert_eq!(text(b'B', "p\0one\0"), None);
        assert_eq!(text(b'B', "\0\0"), None);
        assert_eq!(text(b'E', "p\0\0\0\0\0"), Some("select 2".to_owned()));
        assert_eq!(text(b'E', "\0\0\0\0\0"), Some("select 3".to_owned()));
        assert_eq!(text(b'C', "Sone\0"), None);
        assert_eq!(text(b'C', "Pp\0"), None);
        assert_eq!(text(b'E', "p\0\0\0\0\0"), Some(String::new()));
        let statement = session.read(&message(b'Q', "select\n    4\0")).expect("a statement");
        assert_eq!(statement.to_string(), "ada: select 4");
        assert_eq!((&*statement.user, &*statement.application_name), ("ada", "test"));
    }

    #[tokio::test]
    async fn incomplete_message_is_an_error() {
        let sent = [message(b'Q', "select 1\0"), message(b'S', "")].concat();
        assert!(begins_with_message(&sent));
        assert!(!begins_with_message(&sent[..10]) && !begins_with_message(b"Q"));
        let (mut reader, mut read) = (&sent[..], Vec::new());
        assert_eq!(read_message(&mut reader, &mut read).await.expect("a message"), Some(b'Q'));
        assert_eq!(read, message(b'Q', "select 1\0"));
        assert_eq!(read_message(&mut reader, &mut read).await.expect("a message"), Some(b'S'));
        assert_eq!(read_message(&mut reader, &mut read).await.expect("the end"), None);
        assert!(read_message(&mut &sent[..10], &mut read).await.is_err());
        assert!(read_message(&mut &b"Q\0\0\0\x03"[..], &mut read).await.is_err());
    }
}
