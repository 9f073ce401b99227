//! The proxy for PostgreSQL.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;

use super::effects::{Admission, Effects, Trigger};
use super::fault::{Fault, Gate};
use super::listener::Listener;
use super::protocol::{Opening, Session, Statement, begins_with_message, read_message, read_opening};
use crate::error::Result;
use crate::postgres::url;

/// The messages that belong to a statement and follow it: data to copy, Sync and Flush.
const COMPLETING: &[u8] = b"dcfSH";
/// The messages of the server that show the result of a statement: rows, copied data, completion, error.
const RESULT: &[u8] = b"DCEIsdcHZ";

/// Counts of what the proxy has forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresTotals {
    /// Connections that were accepted, including those that were closed at once.
    pub connections: u64,
    /// Statements that were forwarded, whether or not they count as effects.
    pub statements: u64,
    /// Bytes that the server sent.
    pub received: u64,
}

/// A proxy for a PostgreSQL server and clients without TLS. It ends and closes its connections when dropped.
#[derive(Debug)]
pub struct PostgresProxy {
    listener: Listener,
    statements: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl PostgresProxy {
    /// Starts a proxy on a free port for the server on this port of 127.0.0.1.
    pub fn start(server: u16, effects: &Effects) -> Result<Self> {
        let statements = Arc::new(AtomicU64::new(0));
        let received = Arc::new(AtomicU64::new(0));
        let (shared, count, bytes) = (effects.clone(), Arc::clone(&statements), Arc::clone(&received));
        let listener = Listener::start("postgres-proxy", effects, move || {
            Ok(move |client, gate| {
                let connection = Connection {
                    effects: shared.clone(),
                    gate,
                    answers: Mutex::new(Answers { requested: 1, completed: 0, awaited: None }),
                    statements: Arc::clone(&count),
                    received: Arc::clone(&bytes),
                };
                // An error has closed the connection for both sides: there is nothing to report.
                async move { drop(connection.serve(client, server).await) }
            })
        })?;
        Ok(Self { listener, statements, received })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// A URL of this database with this login, through the proxy. The arguments must need no escaping.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        url(self.port(), user, password, database)
    }

    /// Injects a fault; `Fault::Pass` ends it.
    pub fn set(&self, fault: Fault) {
        self.listener.set(fault.into(), None);
    }

    /// Counts of what the proxy has forwarded.
    pub fn totals(&self) -> PostgresTotals {
        PostgresTotals {
            connections: self.listener.connections(),
            statements: self.statements.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }
}

struct Connection {
    effects: Effects,
    gate: Gate,
    answers: Mutex<Answers>,
    statements: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

/// The answers that the client expects. The server ends each with ReadyForQuery: one for the startup, one for each simple
/// query and one for each Sync.
struct Answers {
    requested: u64,
    completed: u64,
    /// The answer after which the trigger fires.
    awaited: Option<(u64, Trigger)>,
}

/// The decision on a message of the server.
enum Decision {
    Forward,
    Withhold,
    Fire(Trigger),
}

impl Answers {
    /// Records a message of the client.
    fn record_request(&mut self, kind: u8) {
        self.requested += u64::from(b"QFS".contains(&kind));
    }

    /// Records a message of the server.
    fn record_answer(&mut self, kind: u8) -> Decision {
        let current = self.completed + 1;
        self.completed += u64::from(kind == b'Z');
        match self.awaited.take_if(|(awaited, _)| *awaited == current && kind == b'Z') {
            Some((_, trigger)) => Decision::Fire(trigger),
            None => match &self.awaited {
                // The rest is forwarded: a client sends data to copy only when the server requests it.
                Some((awaited, _)) if *awaited == current && RESULT.contains(&kind) => Decision::Withhold,
                _ => Decision::Forward,
            },
        }
    }
}

/// How far messages of the client are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Unlimited,
    /// An execution is awaited: up to the Sync after which the server ends its answer. A client that waits for the answer
    /// before it sends the Sync would wait forever; neither sqlx nor libpq does that.
    Sync,
    /// Nothing after the awaited statement.
    Statement,
}

impl Connection {
    async fn serve(&self, mut client: TcpStream, server: u16) -> io::Result<()> {
        let (mut gate, mut packet) = (self.gate.clone(), Vec::new());
        let opening = loop {
            gate.opened().await;
            match read_opening(&mut client, &mut packet).await? {
                Opening::Encryption => client.write_all(b"N").await?,
                opening => break opening,
            }
        };
        gate.opened().await;
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
        server.set_nodelay(true)?;
        server.write_all(&packet).await?;
        let Opening::Session(session) = opening else {
            // The server closes the connection when it has cancelled the statement; the client waits for that.
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
        let (mut gate, mut message, mut reach) = (self.gate.clone(), Vec::new(), Reach::Unlimited);
        let mut client = BufReader::new(client);
        // An error ends the stream too: a killed process causes either.
        while let Some(kind) = read_message(&mut client, &mut message).await.unwrap_or_default() {
            gate.opened().await;
            if reach == Reach::Statement && !COMPLETING.contains(&kind) {
                return std::future::pending().await;
            }
            if let Some(statement) = session.read(&message) {
                match self.admit(&mut gate, &statement).await {
                    Admission::Forward => {}
                    Admission::Await(trigger) => {
                        let mut answers = self.answers();
                        answers.awaited = Some((answers.requested + 1, trigger));
                        reach = if kind == b'E' { Reach::Sync } else { Reach::Statement };
                    }
                    Admission::Never => return std::future::pending().await,
                }
                self.statements.fetch_add(1, Ordering::Relaxed);
            }
            if kind == b'S' && reach == Reach::Sync {
                reach = Reach::Statement;
            }
            self.answers().record_request(kind);
            if server.write_all(&message).await.is_err() {
                // The server has disconnected. `towards_client` reads its last messages and ends the connection.
                return std::future::pending().await;
            }
        }
        if reach == Reach::Statement {
            // The client has disconnected, but the server executes the statement: its answer ends the connection.
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
            self.received.fetch_add(message.len() as u64, Ordering::Relaxed);
            gate.opened().await;
            let decision = self.answers().record_answer(kind);
            let mut sent = match decision {
                Decision::Forward => client.write_all(&message).await,
                Decision::Withhold => Ok(()),
                Decision::Fire(trigger) => {
                    // Answers to earlier statements are delivered.
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
        // The session was terminated: the answer is as complete as it will be.
        let awaited = self.answers().awaited.take();
        match awaited {
            Some((_, trigger)) => fire(trigger).await,
            None => client.flush().await,
        }
    }

    async fn admit(&self, gate: &mut Gate, statement: &Statement) -> Admission {
        gate.delay().await;
        loop {
            gate.opened().await;
            if let Some(admission) = self.effects.admit_statement(gate.epoch(), statement) {
                return admission;
            }
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fires the trigger. The connection is closed with all others when the action has run, or at once if the trigger was
/// reset meanwhile.
async fn fire(trigger: Trigger) -> io::Result<()> {
    if trigger.fire() { std::future::pending().await } else { Ok(()) }
}
