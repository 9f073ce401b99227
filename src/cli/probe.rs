//! `tenantry probe`: whether an operator answers, for `helm test` and for images without a shell.

use std::{io, time::Duration};

use clap::Args;
use http::Uri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::output::print;

/// Flags of `tenantry probe`.
#[derive(Args)]
#[command(after_help = "Example:\n  tenantry probe http://tenantry.tenantry-system:8080/readyz")]
pub struct Arguments {
    /// What to ask for: http://HOST:PORT/PATH
    #[arg(value_name = "URL")]
    url: Uri,

    /// Seconds to wait for the answer
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not an address of plain HTTP.
    #[error("{0} is not http://HOST:PORT/PATH")]
    Url(Uri),
    /// No answer.
    #[error("{url}: {error}")]
    Connection {
        /// What was asked for.
        url: Uri,
        /// Why there is no answer.
        error: io::Error,
    },
    /// An answer that is not 200.
    #[error("{url} answers {status}: {body}")]
    Answer {
        /// What was asked for.
        url: Uri,
        /// The status of the answer.
        status: String,
        /// What it says.
        body: String,
    },
}

/// Asks once, and prints the answer. An error unless it is 200.
pub async fn probe(arguments: Arguments) -> Result<(), ProbeError> {
    let Arguments { url, timeout: seconds } = arguments;
    let (Some("http"), Some(host)) = (url.scheme_str(), url.host()) else { return Err(ProbeError::Url(url)) };
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    // The connection ends with the answer.
    let request = format!("GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n");
    let asked = ask(host, url.port_u16().unwrap_or(80), &request);
    let answered = timeout(Duration::from_secs(seconds.into()), asked).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {seconds} s")))
    });
    let connection = |error| ProbeError::Connection { url: url.clone(), error };
    let answer = answered.map_err(connection)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or("nothing");
    if status == "200" {
        return print(body).map_err(connection);
    }
    Err(ProbeError::Answer { status: status.to_owned(), body: body.trim_end().to_owned(), url })
}

async fn ask(host: &str, port: u16, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
