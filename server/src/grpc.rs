//! gRPC: the services of `millrace.v1`, health and reflection; gRPC-Web on the same port. A thin face: every
//! method is a function of [`Control`] behind the [`Gate`]. REST calls these very services.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use millrace_proto::v1;
use millrace_proto::v1::access_service_server::{AccessService, AccessServiceServer};
use millrace_proto::v1::mirror_service_server::{MirrorService, MirrorServiceServer};
use millrace_proto::v1::peer_service_server::{PeerService, PeerServiceServer};
use millrace_proto::v1::system_service_server::{SystemService, SystemServiceServer};
use millrace_terms::{Code, Error};
use serde::Serialize;
use serde_json::Value;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_web::GrpcWebLayer;

use crate::access::Caller;
use crate::access::audit::{self, Asked};
use crate::control::Control;
use crate::cors::Cors;
use crate::fault::Answer;
use crate::gate::{Gate, request_id};
use crate::listen::Incoming;

/// Bytes of a request at most: the longest is a document of `apply`.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Bytes of an answer at most: a page of a thousand mirrors with their tables.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Requests at once on one connection.
const REQUESTS_PER_CONNECTION_MAX: usize = 128;
/// A connection that is silent is asked whether it lives this often: watches may be silent for long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to answer that.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Name of the metadata key with the request's id, in requests and answers.
pub(crate) const REQUEST_ID_KEY: &str = "x-request-id";

/// What WatchMirror answers with.
type Changes = Pin<Box<dyn Stream<Item = Result<v1::WatchMirrorResponse, Status>> + Send>>;

/// The services.
#[derive(Clone)]
struct Api {
    control: Arc<Control>,
    gate: Arc<Gate>,
}

/// The services of `millrace.v1`, for whoever calls them: the network, or REST.
pub(crate) fn services(control: Arc<Control>, gate: Arc<Gate>) -> Routes {
    let api = Api { control, gate };
    macro_rules! limited {
        ($service:ident) => {
            $service::new(api.clone())
                .max_decoding_message_size(REQUEST_BYTES_MAX)
                .max_encoding_message_size(ANSWER_BYTES_MAX)
        };
    }
    Routes::new(limited!(PeerServiceServer))
        .add_service(limited!(MirrorServiceServer))
        .add_service(limited!(SystemServiceServer))
        .add_service(limited!(AccessServiceServer))
}

/// Serves the services until `shutdown`; open requests are finished first.
pub(crate) async fn serve(
    connections: Incoming,
    services: Routes,
    cors: Cors,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<PeerServiceServer<Api>>().await;
    health_reporter.set_serving::<MirrorServiceServer<Api>>().await;
    health_reporter.set_serving::<SystemServiceServer<Api>>().await;
    health_reporter.set_serving::<AccessServiceServer<Api>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(millrace_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |error| Error::new(Code::Internal, format!("the API's descriptors: {error}"));
    // Many clients know the older version only, Python's among them.
    let (v1, v1alpha) =
        (reflection().build_v1().map_err(broken)?, reflection().build_v1alpha().map_err(broken)?);
    let connections = stream::unfold(connections, async |mut connections| {
        let (connection, _) = connections.next().await?;
        Some((Ok::<_, std::io::Error>(connection), connections))
    });
    tonic::transport::Server::builder()
        .accept_http1(true) // a browser's gRPC-Web without TLS
        .concurrency_limit_per_connection(REQUESTS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(cors)
        .layer(GrpcWebLayer::new())
        .add_routes(services.add_service(health).add_service(v1).add_service(v1alpha))
        .serve_with_incoming_shutdown(connections, shutdown.cancelled_owned())
        .await
        .map_err(|error| Error::new(Code::Internal, format!("gRPC: {error}")))
}

impl Api {
    /// Carries a request out behind the gate, if its caller may make it, and writes down what it changes.
    async fn answer<M, T, W>(
        &self,
        method: &'static str,
        request: Request<M>,
        work: impl FnOnce(Arc<Control>, Caller, M) -> W + Send + 'static,
        told: impl FnOnce(&T) -> Value + Send + 'static,
    ) -> Result<Response<T>, Status>
    where
        M: Serialize + Send + Sync + 'static,
        T: Send + Sync + 'static,
        W: Future<Output = Answer<T>> + Send + 'static,
    {
        let given = request.metadata().get(REQUEST_ID_KEY).and_then(|id| id.to_str().ok());
        let id = request_id(given);
        let (metadata, _, message) = request.into_parts();
        let (control, request_id) = (self.control.clone(), id.clone());
        let work = async move {
            let caller = control.access.identify(metadata.as_ref()).await?;
            let _place = control.access.admit(&caller)?;
            let asked = Asked { caller, method, request_id };
            audit::carry_out(control, asked, message, work, told).await
        };
        let header = id.parse().ok();
        match self.gate.pass(method, &id, work).await {
            Ok(answer) => {
                let mut response = Response::new(answer);
                if let Some(header) = header {
                    response.metadata_mut().insert(REQUEST_ID_KEY, header);
                }
                Ok(response)
            }
            Err(fault) => {
                let mut status = Status::from(fault);
                if let Some(header) = header {
                    status.metadata_mut().insert(REQUEST_ID_KEY, header);
                }
                Err(status)
            }
        }
    }
}

/// An answer as the audit log shows it.
fn told(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}

/// A service whose methods are each answered by the function of [`Control`] of the same name.
/// The whole `impl` is inside, because `async_trait` does not look into macros.
macro_rules! service {
    ($service:ident { $($name:ident $method:literal ($request:ident) -> $answer:ident;)+ } $({ $($more:tt)+ })?) => {
        #[tonic::async_trait]
        impl $service for Api {
            $(
                async fn $name(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$answer>, Status> {
                    let work = |control, _caller, message| Control::$name(control, message);
                    self.answer($method, request, work, told).await
                }
            )+
            $($($more)+)?
        }
    };
}

service! {
    PeerService {
        create_peer "CreatePeer" (CreatePeerRequest) -> Peer;
        get_peer "GetPeer" (GetPeerRequest) -> Peer;
        list_peers "ListPeers" (ListPeersRequest) -> ListPeersResponse;
        update_peer "UpdatePeer" (UpdatePeerRequest) -> Peer;
        delete_peer "DeletePeer" (DeletePeerRequest) -> DeletePeerResponse;
        cleanup_peer "CleanupPeer" (CleanupPeerRequest) -> CleanupPeerResponse;
        validate_peer "ValidatePeer" (ValidatePeerRequest) -> ValidatePeerResponse;
        get_replication_slot "GetReplicationSlot" (GetReplicationSlotRequest) -> ReplicationSlot;
        list_source_tables "ListSourceTables" (ListSourceTablesRequest) -> ListSourceTablesResponse;
    }
}

service! {
    MirrorService {
        create_mirror "CreateMirror" (CreateMirrorRequest) -> Mirror;
        get_mirror "GetMirror" (GetMirrorRequest) -> Mirror;
        list_mirrors "ListMirrors" (ListMirrorsRequest) -> ListMirrorsResponse;
        update_mirror "UpdateMirror" (UpdateMirrorRequest) -> Mirror;
        delete_mirror "DeleteMirror" (DeleteMirrorRequest) -> DeleteMirrorResponse;
        validate_mirror "ValidateMirror" (ValidateMirrorRequest) -> ValidateMirrorResponse;
        pause_mirror "PauseMirror" (PauseMirrorRequest) -> Mirror;
        resume_mirror "ResumeMirror" (ResumeMirrorRequest) -> Mirror;
        resync_mirror "ResyncMirror" (ResyncMirrorRequest) -> Mirror;
        resync_table "ResyncTable" (ResyncTableRequest) -> Mirror;
        pause_table "PauseTable" (PauseTableRequest) -> Mirror;
        resume_table "ResumeTable" (ResumeTableRequest) -> Mirror;
        cancel_table_copy "CancelTableCopy" (CancelTableCopyRequest) -> Mirror;
        drop_table "DropTable" (DropTableRequest) -> Mirror;
        list_mirror_events "ListMirrorEvents" (ListMirrorEventsRequest) -> ListMirrorEventsResponse;
        list_batches "ListBatches" (ListBatchesRequest) -> ListBatchesResponse;
        verify_mirror "VerifyMirror" (VerifyMirrorRequest) -> Verification;
        get_verification "GetVerification" (GetVerificationRequest) -> Verification;
        cancel_verification "CancelVerification" (CancelVerificationRequest) -> Verification;
    }
    {
        type WatchMirrorStream = Changes;

        async fn watch_mirror(
            &self,
            request: Request<v1::WatchMirrorRequest>,
        ) -> Result<Response<Changes>, Status> {
            let watch = self
                .answer("WatchMirror", request, |c, _caller, m| Control::watch_mirror(c, m), |_| Value::Null)
                .await?;
            Ok(watch.map(|changes| {
                let messages = changes.map(|change: Answer<v1::Mirror>| match change {
                    Ok(mirror) => Ok(v1::WatchMirrorResponse { mirror: Some(mirror) }),
                    Err(fault) => Err(Status::from(fault)),
                });
                Box::pin(messages) as Changes
            }))
        }
    }
}

service! {
    AccessService {
        list_tokens "ListTokens" (ListTokensRequest) -> ListTokensResponse;
        revoke_token "RevokeToken" (RevokeTokenRequest) -> RevokeTokenResponse;
        list_audit_entries "ListAuditEntries" (ListAuditEntriesRequest) -> ListAuditEntriesResponse;
    }
    {
        async fn create_token(
            &self,
            request: Request<v1::CreateTokenRequest>,
        ) -> Result<Response<v1::CreateTokenResponse>, Status> {
            let work = |control, caller, message| Control::create_token(control, message, caller);
            self.answer("CreateToken", request, work, told).await
        }
    }
}

service! {
    SystemService {
        get_version "GetVersion" (GetVersionRequest) -> GetVersionResponse;
        get_system_status "GetSystemStatus" (GetSystemStatusRequest) -> SystemStatus;
        apply "Apply" (ApplyRequest) -> ApplyResponse;
        export "Export" (ExportRequest) -> ExportResponse;
        doctor "Doctor" (DoctorRequest) -> DoctorResponse;
    }
}
