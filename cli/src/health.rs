//! `millrace health URL`: for the health checks of containers, whose image has no HTTP client.
//!
//! I/O rim.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use millrace_terms::{Code, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time to answer. Platforms give up after a few seconds, too.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Bytes of an answer that are looked at: the status line is in them.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Arguments of `millrace health`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace health http://127.0.0.1:8113/healthz    # a server
  millrace health http://127.0.0.1:9091/healthz    # a worker")]
pub struct HealthArguments {
    /// What to ask for, by plain HTTP
    #[arg(value_name = "URL")]
    url: String,
}

/// Asks the URL once.
///
/// # Errors
/// INVALID_ARGUMENT if it is not an `http://` URL; SERVER_UNREACHABLE if there is no answer within
/// 3 s, or another than 2xx.
pub async fn run(arguments: HealthArguments) -> anyhow::Result<ExitCode> {
    let (authority, path) = split(&arguments.url)?;
    let unhealthy = |why: String| Error::new(Code::ServerUnreachable, format!("{}: {why}", arguments.url));
    let answer = tokio::time::timeout(ANSWER_MAX, get(authority, path)).await;
    let answer = answer
        .map_err(|_| unhealthy(format!("no answer within {} s", ANSWER_MAX.as_secs())))?
        .map_err(|error| unhealthy(error.to_string()))?;
    match status(&answer) {
        Some(200..=299) => Ok(ExitCode::SUCCESS),
        Some(status) => Err(unhealthy(format!("status {status}")).into()),
        None => Err(unhealthy("the answer is not HTTP".to_owned()).into()),
    }
}

/// Whether the URL answers with 2xx within 3 s.
pub(crate) async fn is_well(url: &str) -> bool {
    let Ok((authority, path)) = split(url) else { return false };
    let answer = tokio::time::timeout(ANSWER_MAX, get(authority, path)).await;
    matches!(answer, Ok(Ok(answer)) if status(&answer).is_some_and(|status| (200..=299).contains(&status)))
}

async fn get(authority: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(authority).await?;
    // HTTP/1.0: the answer ends with the connection, and no part of it is chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Host with port, and path.
fn split(url: &str) -> Result<(&str, &str), Error> {
    let wrong = || {
        Error::new(Code::InvalidArgument, format!("{url}: not an http:// URL with a port"))
            .with_remedy("Give a URL such as http://127.0.0.1:8113/healthz.")
    };
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.ok_or_else(wrong)?;
    Ok((authority, if path.is_empty() { "/" } else { path }))
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
        assert_eq!(split("http://127.0.0.1:8113/healthz").unwrap(), ("127.0.0.1:8113", "/healthz"));
        assert_eq!(split("http://[::1]:1").unwrap(), ("[::1]:1", "/"));
        for bad in ["https://a:1/", "http://a/", "a:1", "http://a:x/"] {
            assert_eq!(split(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status(b"SSH-2.0-x"), None);
        assert_eq!(status(b"HTTP/1."), None);
    }
}
