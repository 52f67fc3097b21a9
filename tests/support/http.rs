//! `GET` over HTTP/1.1, for probes: no client library is worth its weight here.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The whole answer, status line and headers included.
pub async fn get(address: &str, path: &str) -> Result<String, String> {
    let text = |error: std::io::Error| format!("{address}{path}: {error}");
    let mut stream = tokio::net::TcpStream::connect(address).await.map_err(text)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(text)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
