//! The connections of the API: plain, or TLS with the certificate of the moment. A handshake holds up no other,
//! and certificates that are renewed on disk are taken up without a restart.
//!
//! I/O rim.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::extract::connect_info::Connected as AxumConnected;
use axum::serve::{IncomingStream, Listener};
use millrace_terms::{Code, Error, Result};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long a handshake may take: a few round trips around the world.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once: each holds some KiB and computes for a millisecond. Beyond it new connections wait.
const HANDSHAKES_MAX: usize = 256;
/// Connections that are ready and not taken up yet.
const READY_MAX: usize = 64;
/// How often is looked whether the files of the certificate have changed: it costs three calls of the system.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after an accept that failed: out of file descriptors, for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The protocols of both listeners, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files of TLS, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate of the server, with its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities one of which must have signed the clients' certificates; none if clients need none.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    fn all(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// When they were written; none where that cannot be told.
    fn written(&self) -> Vec<Option<SystemTime>> {
        self.all().map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok()).collect()
    }

    fn load(&self) -> Result<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(Code::Internal, format!("TLS cannot be set up: {error}")))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = rustls::RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| unreadable(path, &error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(|error| unreadable(path, &error))?)
            }
        };
        let key = content(&self.key)
            .and_then(|pem| millrace_tls::private_key(&pem))
            .map_err(|why| unreadable(&self.key, &why))?;
        let mut config = builder
            .with_single_cert(certificates(&self.cert)?, key)
            .map_err(|error| unreadable(&self.cert, &error))?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    content(path).and_then(|pem| millrace_tls::certificates(&pem)).map_err(|why| unreadable(path, &why))
}

fn content(path: &Path) -> std::result::Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| error.to_string())
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new(Code::InvalidArgument, format!("{}: {why}", path.display()))
        .with_remedy(
            "Give --api-tls-cert, --api-tls-key and --api-tls-client-ca PEM files that this user may read; the key \
             must be that of the certificate.",
        )
        .with("path", path.display().to_string())
}

/// The TLS of the moment.
#[derive(Clone)]
pub(crate) struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// Reads the files, and again whenever they have changed, until `shutdown`. What cannot be read then leaves
    /// the certificate as it was.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if they cannot be read now.
    pub(crate) fn open(files: TlsFiles, shutdown: CancellationToken) -> Result<Self> {
        let mut seen = files.written();
        let this = Self(Arc::new(RwLock::new(Arc::new(files.load()?))));
        let tls = this.clone();
        tokio::spawn(async move {
            while shutdown.run_until_cancelled(tokio::time::sleep(RELOAD_INTERVAL)).await.is_some() {
                tls.reload(&files, &mut seen);
            }
        });
        Ok(this)
    }

    fn reload(&self, files: &TlsFiles, seen: &mut Vec<Option<SystemTime>>) {
        let written = files.written();
        if written == *seen {
            return;
        }
        match files.load() {
            Ok(config) => {
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                *seen = written;
                tracing::info!("the certificate of the API was read again");
            }
            // Certificate and key are not renewed in one instant: it is tried again at the next look.
            Err(error) => {
                tracing::warn!(message = error.message(), "the certificate of the API stays as it was")
            }
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Connections that are ready to be served.
pub(crate) struct Incoming {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    local: SocketAddr,
}

impl Incoming {
    /// Accepts connections until `shutdown`, and shakes hands if they are to be TLS.
    pub(crate) fn new(listener: TcpListener, tls: Option<Tls>, shutdown: CancellationToken) -> Result<Self> {
        let broken = |error: io::Error| Error::new(Code::Internal, format!("a listener: {error}"));
        let local = listener.local_addr().map_err(broken)?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        tokio::spawn(async move {
            shutdown.run_until_cancelled(accept(listener, tls, sender)).await;
        });
        Ok(Self { ready, local })
    }

    /// The next connection; none when there will be no more.
    pub(crate) async fn next(&mut self) -> Option<(Connection, SocketAddr)> {
        self.ready.recv().await
    }
}

async fn accept(listener: TcpListener, tls: Option<Tls>, ready: mpsc::Sender<(Connection, SocketAddr)>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Nothing tells when it can be again.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and awaited.
        let _without_it_is_slower = stream.set_nodelay(true);
        let Some(tls) = &tls else {
            if ready.send((Connection::Plain(stream), peer)).await.is_err() {
                return;
            }
            continue;
        };
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (handshake, ready) = (tls.acceptor().accept(stream), ready.clone());
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => drop(ready.send((Connection::Tls(Box::new(stream)), peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            }
        });
    }
}

impl Listener for Incoming {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.next().await {
            Some(ready) => ready,
            // The server is shutting down: it stops to ask.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl AxumConnected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection of a client.
pub(crate) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match self {
            Self::Plain(stream) => stream.connect_info(),
            Self::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

/// The stream that does the work of a [`Connection`].
macro_rules! delegate {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
