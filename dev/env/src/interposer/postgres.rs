//! The proxy in front of PostgreSQL.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;

use super::door::Door;
use super::effects::{Admission, Effects, Trigger};
use super::messages::{Opening, Session, Statement, begins_with_message, read_message, read_opening};
use super::trouble::{Gate, Trouble};
use crate::error::Result;
use crate::postgres::url;

/// What a client may send after the message that completes a statement, for the statement's sake: data to copy, and the
/// Sync and Flush around it.
const COMPLETING: &[u8] = b"dcfSH";
/// What of the server's answer tells how a statement went: rows, copied data, completion, error.
const TELLING: &[u8] = b"DCEIsdcHZ";

/// What has gone through so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresTotals {
    /// Connections that were accepted, also those that were closed at once.
    pub connections: u64,
    /// Statements that were forwarded, counted as effects or not.
    pub statements: u64,
}

/// A proxy in front of a PostgreSQL server, for clients without TLS. Ends when dropped, and its connections with it.
#[derive(Debug)]
pub struct PostgresProxy {
    door: Door,
    statements: Arc<AtomicU64>,
}

impl PostgresProxy {
    /// Starts one, on a free port, in front of the server on this port of 127.0.0.1.
    pub fn start(server: u16, effects: &Effects) -> Result<Self> {
        let statements = Arc::new(AtomicU64::new(0));
        let (shared, count) = (effects.clone(), Arc::clone(&statements));
        let door = Door::open("postgres-proxy", effects, move || {
            Ok(move |client, gate| {
                let connection = Connection {
                    effects: shared.clone(),
                    gate,
                    answers: Mutex::new(Answers { asked: 1, given: 0, awaited: None }),
                    statements: Arc::clone(&count),
                };
                // A connection that breaks has told both ends all there is to tell.
                async move { drop(connection.serve(client, server).await) }
            })
        })?;
        Ok(Self { door, statements })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.door.port()
    }

    /// A URL for this login and database, through the proxy. The three must need no escaping.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        url(self.port(), user, password, database)
    }

    /// Makes trouble, or with `Trouble::Pass` ends it.
    pub fn set(&self, trouble: Trouble) {
        self.door.set(trouble.into(), None);
    }

    /// What has gone through so far.
    pub fn totals(&self) -> PostgresTotals {
        PostgresTotals {
            connections: self.door.connections(),
            statements: self.statements.load(Ordering::Relaxed),
        }
    }
}

struct Connection {
    effects: Effects,
    gate: Gate,
    answers: Mutex<Answers>,
    statements: Arc<AtomicU64>,
}

/// What the server owes the client. It closes every answer with a ReadyForQuery: one for the startup, one for each
/// simple query and one for each Sync.
struct Answers {
    asked: u64,
    given: u64,
    /// The answer after which the trigger is fired.
    awaited: Option<(u64, Trigger)>,
}

/// What becomes of a message of the server.
enum Fate {
    Forward,
    Withhold,
    Fire(Trigger),
}

impl Answers {
    /// Takes note of a message of the client.
    fn ask(&mut self, kind: u8) {
        self.asked += u64::from(b"QFS".contains(&kind));
    }

    /// Takes note of a message of the server.
    fn give(&mut self, kind: u8) -> Fate {
        let current = self.given + 1;
        self.given += u64::from(kind == b'Z');
        match self.awaited.take_if(|(awaited, _)| *awaited == current && kind == b'Z') {
            Some((_, trigger)) => Fate::Fire(trigger),
            None => match &self.awaited {
                // The rest is forwarded: a client that is to send data to copy waits to be asked for it.
                Some((awaited, _)) if *awaited == current && TELLING.contains(&kind) => Fate::Withhold,
                _ => Fate::Forward,
            },
        }
    }
}

/// How far a client may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Anywhere,
    /// An execution is awaited: to the Sync that makes the server close its answer. A client that waits for an answer
    /// before its Sync waits in vain; neither sqlx nor libpq does.
    Sync,
    /// Nothing that follows the awaited statement.
    Here,
}

impl Connection {
    async fn serve(&self, mut client: TcpStream, server: u16) -> io::Result<()> {
        let (mut gate, mut packet) = (self.gate.clone(), Vec::new());
        let opening = loop {
            gate.open().await;
            match read_opening(&mut client, &mut packet).await? {
                Opening::Encryption => client.write_all(b"N").await?,
                opening => break opening,
            }
        };
        gate.open().await;
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
        server.set_nodelay(true)?;
        server.write_all(&packet).await?;
        let Opening::Session(session) = opening else {
            // The server closes when it has cancelled; the client waits for that.
            return server.read_to_end(&mut packet).await.map(|_| ());
        };
        let ((client_reads, client_writes), (server_reads, server_writes)) = (client.split(), server.split());
        tokio::select! {
            outcome = self.towards_server(client_reads, server_writes, session) => outcome,
            outcome = self.towards_client(server_reads, client_writes) => outcome,
        }
    }

    async fn towards_server(
        &self,
        client: impl AsyncRead + Unpin,
        mut server: impl AsyncWrite + Unpin,
        mut session: Session,
    ) -> io::Result<()> {
        let (mut gate, mut message, mut reach) = (self.gate.clone(), Vec::new(), Reach::Anywhere);
        let mut client = BufReader::new(client);
        // An error is an end: a process that was killed leaves either.
        while let Some(kind) = read_message(&mut client, &mut message).await.unwrap_or_default() {
            gate.open().await;
            if reach == Reach::Here && !COMPLETING.contains(&kind) {
                return std::future::pending().await;
            }
            if let Some(statement) = session.read(&message) {
                match self.admit(&mut gate, &statement).await {
                    Admission::Forward => {}
                    Admission::Await(trigger) => {
                        let mut answers = self.answers();
                        answers.awaited = Some((answers.asked + 1, trigger));
                        reach = if kind == b'E' { Reach::Sync } else { Reach::Here };
                    }
                    Admission::Never => return std::future::pending().await,
                }
                self.statements.fetch_add(1, Ordering::Relaxed);
            }
            if kind == b'S' && reach == Reach::Sync {
                reach = Reach::Here;
            }
            self.answers().ask(kind);
            if server.write_all(&message).await.is_err() {
                // The server has gone. What it said last is still to be read, and ends this.
                return std::future::pending().await;
            }
        }
        if reach == Reach::Here {
            // The client has gone, but the server does what it was told: its answer ends this.
            return std::future::pending().await;
        }
        Ok(())
    }

    async fn towards_client(
        &self,
        server: impl AsyncRead + Unpin,
        client: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (mut gate, mut message) = (self.gate.clone(), Vec::new());
        let (mut server, mut client) = (BufReader::new(server), BufWriter::new(client));
        while let Some(kind) = read_message(&mut server, &mut message).await.unwrap_or_default() {
            gate.open().await;
            let fate = self.answers().give(kind);
            let mut sent = match fate {
                Fate::Forward => client.write_all(&message).await,
                Fate::Withhold => Ok(()),
                Fate::Fire(trigger) => {
                    // Earlier answers are the client's.
                    let _ = client.flush().await;
                    return fire(trigger).await;
                }
            };
            if !begins_with_message(server.buffer()) {
                sent = sent.and(client.flush().await);
            }
            if sent.is_err() && self.answers().awaited.is_none() {
                return sent;
            }
        }
        // A session that was ended has had all the answer it will get.
        let awaited = self.answers().awaited.take();
        match awaited {
            Some((_, trigger)) => fire(trigger).await,
            None => client.flush().await,
        }
    }

    async fn admit(&self, gate: &mut Gate, statement: &Statement) -> Admission {
        gate.delay().await;
        loop {
            gate.open().await;
            if let Some(admission) = self.effects.admit_statement(gate.epoch(), statement) {
                return admission;
            }
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection ends with all the others, once the action has run; at once if the trigger was forgotten meanwhile.
async fn fire(trigger: Trigger) -> io::Result<()> {
    if trigger.fire() { std::future::pending().await } else { Ok(()) }
}
