//! A client that stops during the login, or sends messages that no library sends.

use std::io;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::stage::{Outcome, as_text};

/// A connection whose password is not verified yet.
pub struct Wire {
    stream: TcpStream,
    scram: ScramSha256,
}

impl Wire {
    /// Begins to log in, and stops when the server waits for the proof of the password.
    pub async fn knock(port: u16, parameters: &[(&str, &str)], password: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(as_text)?;
        let scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut wire = Self { stream, scram };
        let mut startup = 196_608_i32.to_be_bytes().to_vec();
        for (name, value) in parameters {
            startup.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        startup.push(0);
        wire.send(None, &startup).await.map_err(as_text)?;
        wire.receive().await?;
        let message = wire.scram.message();
        let mut first = b"SCRAM-SHA-256\0".to_vec();
        first.extend_from_slice(&i32::try_from(message.len()).map_err(as_text)?.to_be_bytes());
        first.extend_from_slice(message);
        wire.send(Some(b'p'), &first).await.map_err(as_text)?;
        let (_, challenge) = wire.receive().await?;
        wire.scram.update(&challenge[4..]).map_err(as_text)?;
        Ok(wire)
    }

    /// Sends the proof of the password, and waits until the server is ready.
    pub async fn enter(&mut self) -> Outcome {
        let proof = self.scram.message().to_vec();
        self.send(Some(b'p'), &proof).await.map_err(as_text)?;
        self.until_ready().await
    }

    /// Runs a statement.
    pub async fn query(&mut self, sql: &str) -> Outcome {
        self.send(Some(b'Q'), format!("{sql}\0").as_bytes()).await.map_err(as_text)?;
        self.until_ready().await
    }

    async fn until_ready(&mut self) -> Outcome {
        while self.receive().await?.0 != b'Z' {}
        Ok(())
    }

    async fn send(&mut self, tag: Option<u8>, body: &[u8]) -> io::Result<()> {
        let length = i32::try_from(body.len() + 4).map_err(io::Error::other)?;
        let mut message: Vec<u8> = tag.into_iter().collect();
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(body);
        self.stream.write_all(&message).await
    }

    /// The tag and the body of the next message, or the server's error.
    async fn receive(&mut self) -> Outcome<(u8, Vec<u8>)> {
        let tag = self.stream.read_u8().await.map_err(as_text)?;
        let length = self.stream.read_u32().await.map_err(as_text)?.saturating_sub(4);
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body).await.map_err(as_text)?;
        if tag == b'E' { Err(String::from_utf8_lossy(&body).replace('\0', " ")) } else { Ok((tag, body)) }
    }
}
