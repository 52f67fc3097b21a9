//! HTTP/1.1 for probes and for REST, a connection a request: no client library is worth its weight here.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body, transfer encoding and all.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The whole answer to a `GET`, status line and headers included.
pub async fn get(address: &str, path: &str) -> Result<String, String> {
    let answer = request(address, "GET", path, &[], b"").await?;
    Ok(format!("{}\r\n\r\n{}", answer.head, answer.text()))
}

/// The answer to a request with these headers.
pub async fn request(
    address: &str,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, String> {
    let mut stream = send(address, verb, path, headers, body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|error| format!("{address}{path}: {error}"))?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| head.clone())?;
    Ok(Answer { status, head, body: answer[end + 4..].to_vec() })
}

/// The lines of an endless answer that hold JSON.
pub struct Lines(BufReader<TcpStream>);

impl Lines {
    /// Sends a `GET`.
    pub async fn get(address: &str, path: &str) -> Result<Self, String> {
        send(address, "GET", path, &[], b"").await.map(|stream| Self(BufReader::new(stream)))
    }

    /// The next value; none at the end. Status line, headers and the sizes of chunks are no values.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line).await {
                Ok(0) | Err(_) => return None,
                Ok(_) if line.starts_with('{') => return serde_json::from_str(&line).ok(),
                Ok(_) => {}
            }
        }
    }
}

async fn send(
    address: &str,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<TcpStream, String> {
    let text = |error: std::io::Error| format!("{address}{path}: {error}");
    let mut stream = TcpStream::connect(address).await.map_err(text)?;
    let mut head = format!("{verb} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.map_err(text)?;
    stream.write_all(body).await.map_err(text)?;
    Ok(stream)
}
