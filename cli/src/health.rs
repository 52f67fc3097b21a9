//! `millrace health URL`: for the health checks of containers, whose image has no HTTP client.
//!
//! - `tls`: who answers an `https://` URL.
//!
//! I/O rim.

mod tls;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use millrace_terms::{Code, Error};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time to answer. Platforms give up after a few seconds, too.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Bytes of an answer that are looked at: the status line is in them.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Arguments of `millrace health`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace health http://127.0.0.1:8113/healthz    # a server
  millrace health http://127.0.0.1:9091/healthz    # a worker
  millrace health https://localhost:8113/readyz --server-ca /run/ca.pem")]
pub struct HealthArguments {
    /// What to ask for: http:// or https://
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    files: tls::Files,
}

/// Asks the URL once.
///
/// # Errors
/// INVALID_ARGUMENT if it is no URL or a file cannot be read; SERVER_UNREACHABLE if there is no answer within
/// 3 s, or another than 2xx.
pub async fn run(arguments: HealthArguments) -> anyhow::Result<ExitCode> {
    let url = split(&arguments.url)?;
    let tls = if url.is_tls { Some(arguments.files.connector()?) } else { None };
    let unhealthy = |why: String| {
        Error::new(Code::ServerUnreachable, format!("{}: {why}", arguments.url))
            .with_remedy("Look at the log of the process, and start it if it is gone.")
    };
    let answer = tokio::time::timeout(ANSWER_MAX, get(&url, tls.as_ref())).await;
    let answer = answer
        .map_err(|_| unhealthy(format!("no answer within {} s", ANSWER_MAX.as_secs())))?
        .map_err(|error| unhealthy(error.to_string()))?;
    match status(&answer) {
        Some(200..=299) => Ok(ExitCode::SUCCESS),
        Some(status) => Err(unhealthy(format!("status {status}")).into()),
        None => Err(unhealthy("the answer is not HTTP".to_owned()).into()),
    }
}

/// Whether the `http://` URL answers with 2xx within 3 s.
pub(crate) async fn is_well(url: &str) -> bool {
    let Ok(url) = split(url) else { return false };
    let answer = tokio::time::timeout(ANSWER_MAX, get(&url, None)).await;
    matches!(answer, Ok(Ok(answer)) if status(&answer).is_some_and(|status| (200..=299).contains(&status)))
}

async fn get(url: &Url<'_>, tls: Option<&TlsConnector>) -> std::io::Result<Vec<u8>> {
    let stream = TcpStream::connect(url.authority).await?;
    match tls {
        None => ask(stream, url).await,
        Some(tls) => ask(tls.connect(tls::name(url.host)?, stream).await?, url).await,
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, url: &Url<'_>) -> std::io::Result<Vec<u8>> {
    // HTTP/1.0: the answer ends with the connection, and no part of it is chunked.
    let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", url.path, url.authority);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await {
        // A server may end TLS without a word; the status line has come by then.
        Err(_) if !answer.is_empty() => Ok(answer),
        read => read.map(|_| answer),
    }
}

/// A URL in parts.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    is_tls: bool,
    /// Host with port.
    authority: &'a str,
    /// The host without brackets.
    host: &'a str,
    path: &'a str,
}

fn split(url: &str) -> Result<Url<'_>, Error> {
    let wrong = || {
        Error::new(Code::InvalidArgument, format!("{url}: not an http:// or https:// URL with a port"))
            .with_remedy("Give a URL such as http://127.0.0.1:8113/healthz.")
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let is_tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(wrong()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(Url { is_tls, authority, host, path: if path.is_empty() { "/" } else { path } })
}

/// The status of an HTTP/1 answer.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(line.get(2..5)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_answers_are_read() {
        let plain = Url { is_tls: false, authority: "127.0.0.1:8113", host: "127.0.0.1", path: "/healthz" };
        assert_eq!(split("http://127.0.0.1:8113/healthz").unwrap(), plain);
        let tls = Url { is_tls: true, authority: "[::1]:1", host: "::1", path: "/" };
        assert_eq!(split("https://[::1]:1").unwrap(), tls);
        for bad in ["ftp://a:1/", "http://a/", "a:1", "http://a:x/"] {
            assert_eq!(split(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status(b"SSH-2.0-x"), None);
        assert_eq!(status(b"HTTP/1."), None);
    }
}
