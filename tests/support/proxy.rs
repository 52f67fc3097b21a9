//! A TCP proxy before a server: while it is cut, the server is gone for whoever comes through it.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy. It ends with the test's runtime.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    is_open: watch::Sender<bool>,
}

impl Proxy {
    /// Starts a proxy before the server at `target`, `host:port`.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (is_open, opened) = watch::channel(true);
        let target = target.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *opened.borrow() {
                    tokio::spawn(pass(client, target.clone(), opened.clone()));
                }
            }
        });
        Self { address, is_open }
    }

    /// Ends every connection, and every one that is tried from now on.
    pub fn cut(&self) {
        self.is_open.send_replace(false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

async fn pass(mut client: TcpStream, target: String, mut opened: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        // Either side has hung up, or failed: the other is told by the end of its connection.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = opened.wait_for(|open| !open) => {}
    }
}
