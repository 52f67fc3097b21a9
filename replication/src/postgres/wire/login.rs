//! From an address to an authenticated connection. I/O.

use std::path::Path;

use bytes::BytesMut;
use millrace_terms::{Code, Error, Result};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};
use postgres_protocol::message::{backend, frontend};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::socket::{Paced, Socket};
use super::{Frame, Stream, Wire, malformed, refusal};
use crate::postgres::SourceConfig;
use crate::postgres::error::from_io;
use crate::postgres::tls::{self, TlsMode};

/// Kinds of AuthenticationRequest (PostgreSQL documentation, section 54.7).
mod request {
    pub const OK: u32 = 0;
    pub const CLEARTEXT: u32 = 3;
    pub const MD5: u32 = 5;
    pub const SASL: u32 = 10;
    pub const SASL_CONTINUE: u32 = 11;
    pub const SASL_FINAL: u32 = 12;
}

/// Opens the connection, encrypted as wanted.
///
/// # Errors
/// `ADDRESS_DENIED`, `SOURCE_UNREACHABLE`, `SOURCE_TLS`.
pub(super) async fn reach(config: &SourceConfig, paced: Paced, doing: &str) -> Result<Stream> {
    let failed = |error: std::io::Error| from_io(doing, &error);
    let addresses = config.addresses().await?;
    if config.host.starts_with('/') {
        let path = Path::new(&config.host).join(format!(".s.PGSQL.{}", config.port));
        return Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?));
    }
    // The first that answers. The certificate is compared with the name, not with the address.
    let tcp = TcpStream::connect(&addresses[..]).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let mut socket = Socket::new(tcp, paced);
    if config.tls.mode == TlsMode::Disable {
        return Ok(Box::new(socket));
    }
    let mut bytes = BytesMut::new();
    frontend::ssl_request(&mut bytes);
    socket.write_all(&bytes).await.map_err(failed)?;
    if socket.read_u8().await.map_err(failed)? != b'S' {
        if config.tls.mode == TlsMode::Prefer {
            return Ok(Box::new(socket));
        }
        return Err(Error::new(Code::SourceTls, format!("{doing}: the server does not support TLS")));
    }
    let mut maker = tls::connector(&config.tls, &config.host)?;
    let refused = |error: &dyn std::fmt::Display| Error::new(Code::SourceTls, format!("{doing}: {error}"));
    let connect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::make_tls_connect(&mut maker, &config.host);
    let stream =
        connect.map_err(|error| refused(&error))?.connect(socket).await.map_err(|error| refused(&error))?;
    Ok(Box::new(stream))
}

/// Introduces us, until the server takes statements.
///
/// # Errors
/// `SOURCE_AUTH`, and what the server says.
pub(super) async fn authenticate(
    wire: &mut Wire,
    config: &SourceConfig,
    parameters: &[(&str, &str)],
    doing: &str,
) -> Result<()> {
    let who =
        [("user", config.user.as_str()), ("database", config.database.as_str()), ("client_encoding", "UTF8")];
    let mut bytes = BytesMut::new();
    let parameters = who.into_iter().chain(parameters.iter().copied());
    frontend::startup_message(parameters, &mut bytes).map_err(|error| from_io(doing, &error))?;
    wire.send(&bytes, doing).await?;
    let mut scram: Option<ScramSha256> = None;
    loop {
        let frame = wire.input.next(doing).await?;
        match frame.tag {
            backend::AUTHENTICATION_TAG => {
                if let Some(answer) = answer(&frame, config, &mut scram, doing)? {
                    wire.send(&answer, doing).await?;
                }
            }
            backend::PARAMETER_STATUS_TAG => {
                let mut parts = frame.body.split(|byte| *byte == 0);
                if parts.next() == Some(b"server_encoding") {
                    wire.server_encoding =
                        String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                }
            }
            backend::ERROR_RESPONSE_TAG => return Err(refusal(doing, &frame.body)),
            backend::READY_FOR_QUERY_TAG => return Ok(()),
            _ => {}
        }
    }
}

/// What to answer to a question of the login; none if nothing.
fn answer(
    frame: &Frame,
    config: &SourceConfig,
    scram: &mut Option<ScramSha256>,
    doing: &str,
) -> Result<Option<BytesMut>> {
    let (kind, rest) = frame.body.split_first_chunk::<4>().ok_or_else(|| malformed(doing))?;
    let denied = |what: &str| Error::new(Code::SourceAuth, format!("{doing}: {what}"));
    let password = || match config.password.expose_secret() {
        "" => Err(denied("the server asks for a password, and none is given")),
        password => Ok(password.as_bytes()),
    };
    let mut bytes = BytesMut::new();
    let written = match u32::from_be_bytes(*kind) {
        request::OK => return Ok(None),
        request::CLEARTEXT => frontend::password_message(password()?, &mut bytes),
        request::MD5 => {
            let salt = rest.first_chunk::<4>().ok_or_else(|| malformed(doing))?;
            let hash = md5_hash(config.user.as_bytes(), password()?, *salt);
            frontend::password_message(hash.as_bytes(), &mut bytes)
        }
        request::SASL => {
            // The variant that binds the login to the TLS session needs the server's certificate, which the
            // TLS library's session does not hand out; servers that offer it offer this one, too.
            if !rest.split(|byte| *byte == 0).any(|offered| offered == sasl::SCRAM_SHA_256.as_bytes()) {
                return Err(denied("the server offers no way to log in that is known"));
            }
            let begun = scram.insert(ScramSha256::new(password()?, ChannelBinding::unsupported()));
            frontend::sasl_initial_response(sasl::SCRAM_SHA_256, begun.message(), &mut bytes)
        }
        request::SASL_CONTINUE => {
            let scram = scram.as_mut().ok_or_else(|| malformed(doing))?;
            scram.update(rest).map_err(|error| denied(&error.to_string()))?;
            frontend::sasl_response(scram.message(), &mut bytes)
        }
        request::SASL_FINAL => {
            let scram = scram.as_mut().ok_or_else(|| malformed(doing))?;
            return scram.finish(rest).map(|()| None).map_err(|error| denied(&error.to_string()));
        }
        _ => return Err(denied("the server asks for a way to log in that is not supported")),
    };
    written.map_err(|error| from_io(doing, &error))?;
    Ok(Some(bytes))
}
