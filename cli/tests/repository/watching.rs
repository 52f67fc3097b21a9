//! Watching a mirror through a server that goes away and comes back, over a real wire.

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use millrace_proto::v1::mirror_service_server::{MirrorService, MirrorServiceServer};
use millrace_proto::v1::{self, Mirror, WatchMirrorRequest, WatchMirrorResponse, mirror};
use tokio::sync::Notify;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// Serves one mirror in one state to everybody who watches.
struct Fake {
    state: mirror::State,
    watched: Arc<Notify>,
    /// Whether a watch ends after the first message, as when the mirror is gone.
    ends: bool,
}

type Watching = Pin<Box<dyn Stream<Item = Result<WatchMirrorResponse, Status>> + Send>>;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// Calls that nobody makes here, in the form that `async_trait` gives them.
macro_rules! not_served {
    ($($name:ident: $request:ident => $response:ident;)+) => {
        $(fn $name<'life, 'answer>(&'life self, _: Request<v1::$request>) -> Answer<'answer, v1::$response>
        where
            'life: 'answer,
            Self: 'answer,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        })+
    };
}

#[tonic::async_trait]
impl MirrorService for Fake {
    type WatchMirrorStream = Watching;

    async fn watch_mirror(&self, request: Request<WatchMirrorRequest>) -> Result<Response<Watching>, Status> {
        use tokio_stream::StreamExt;
        let mirror =
            Mirror { name: request.into_inner().name, state: self.state.into(), ..Mirror::default() };
        let first = tokio_stream::once(Ok(WatchMirrorResponse { mirror: Some(mirror) }));
        self.watched.notify_one();
        Ok(Response::new(if self.ends {
            Box::pin(first)
        } else {
            Box::pin(first.chain(tokio_stream::pending()))
        }))
    }

    not_served! {
        create_mirror: CreateMirrorRequest => Mirror;
        get_mirror: GetMirrorRequest => Mirror;
        list_mirrors: ListMirrorsRequest => ListMirrorsResponse;
        delete_mirror: DeleteMirrorRequest => DeleteMirrorResponse;
        validate_mirror: ValidateMirrorRequest => ValidateMirrorResponse;
        pause_mirror: PauseMirrorRequest => Mirror;
        resync_mirror: ResyncMirrorRequest => Mirror;
        resync_table: ResyncTableRequest => Mirror;
        update_mirror: UpdateMirrorRequest => Mirror;
        pause_table: PauseTableRequest => Mirror;
        resume_table: ResumeTableRequest => Mirror;
        cancel_table_copy: CancelTableCopyRequest => Mirror;
        drop_table: DropTableRequest => Mirror;
        resume_mirror: ResumeMirrorRequest => Mirror;
        list_mirror_events: ListMirrorEventsRequest => ListMirrorEventsResponse;
        list_batches: ListBatchesRequest => ListBatchesResponse;
        verify_mirror: VerifyMirrorRequest => Verification;
        get_verification: GetVerificationRequest => Verification;
        cancel_verification: CancelVerificationRequest => Verification;
    }
}

/// Serves on the address until the task is aborted, which cuts the connections.
async fn serve(address: SocketAddr, fake: Fake) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.set_reuseaddr(true).unwrap();
    listener.bind(address).unwrap();
    let listener = listener.listen(8).unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(MirrorServiceServer::new(fake));
    (address, tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() }))
}

#[test]
fn a_watch_outlives_a_restart_of_the_server() {
    // A runtime of its own is what a killed server is: every connection ends with it.
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let watched = Arc::new(Notify::new());
    let first = runtime();
    let fake = Fake { state: mirror::State::Snapshot, watched: watched.clone(), ends: false };
    let (address, _) = first.block_on(serve("127.0.0.1:0".parse().unwrap(), fake));
    let client = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["mirror", "watch", "shop", "-o", "json", "--address", &format!("http://{address}")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    first.block_on(watched.notified());
    // The first message is on its way: a client that was never answered does not wait for a return.
    first.block_on(async { tokio::time::sleep(Duration::from_millis(300)).await });
    first.shutdown_timeout(Duration::from_secs(1));

    let second = runtime();
    let fake = Fake { state: mirror::State::Running, watched, ends: true };
    let _serving = second.block_on(serve(address, fake));
    let output = client.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let states: Vec<_> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(states, ["SNAPSHOT", "RUNNING"], "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}
