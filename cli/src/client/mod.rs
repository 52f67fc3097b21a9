//! The client of the API: what `peer`, `mirror` and `apply` share.
//!
//! I/O rim.

pub mod confirm;
pub mod contexts;
pub mod figures;
pub mod output;
pub mod style;

use std::error::Error as _;
use std::time::Duration;

use clap::Args;
use millrace_proto::v1::mirror_service_client::MirrorServiceClient;
use millrace_proto::v1::peer_service_client::PeerServiceClient;
use millrace_proto::v1::system_service_client::SystemServiceClient;
use millrace_server::deadlines;
use millrace_terms::{Code, Error};
use tonic::transport::{Channel, Endpoint};

use self::output::Output;

/// Time to connect: a server on the other side of the world answers in less.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Silence on the connection after which the server is asked whether it lives: a watch may be silent
/// for hours, and a dead peer says nothing either.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Bytes of one answer at most: a page of a thousand wide tables has a few MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How to reach the server, and how to show what it says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Client")]
pub struct ClientArguments {
    /// URL of the server's gRPC
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "MILLRACE_ADDRESS",
        default_value = "http://127.0.0.1:8112"
    )]
    pub address: String,
    /// Context to use: a server by name, see `millrace context`
    #[arg(long, global = true, value_name = "NAME", env = "MILLRACE_CONTEXT")]
    pub context: Option<String>,
    /// Form of the result on stdout; json is the resource as the API returns it
    #[arg(short, long, global = true, value_name = "FORM", value_enum, default_value_t)]
    pub output: Output,
}

/// A connection to the server.
#[derive(Debug, Clone)]
pub struct Client {
    /// Peers.
    pub peers: PeerServiceClient<Channel>,
    /// Mirrors.
    pub mirrors: MirrorServiceClient<Channel>,
    /// The installation as a whole.
    pub system: SystemServiceClient<Channel>,
}

impl Client {
    /// Connects to the server.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the address is no URL; SERVER_UNREACHABLE if nothing answers there.
    pub async fn connect(address: &str) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| {
            Error::new(Code::InvalidArgument, format!("--address {address}: {error}"))
                .with_remedy("Give a URL such as http://127.0.0.1:8112.")
        })?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|error| unreachable(address, &error))?;
        Ok(Self {
            peers: PeerServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            mirrors: MirrorServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            system: SystemServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
        })
    }
}

/// The innermost cause says what happened; the layers above it say "transport error".
fn unreachable(address: &str, error: &tonic::transport::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = if error.source().is_none() { "no answer".to_owned() } else { cause.to_string() };
    Error::new(Code::ServerUnreachable, format!("the server at {address} is unreachable: {cause}"))
        .with("address", address)
}

/// A call with the usual time limit.
pub fn call<T>(message: T) -> tonic::Request<T> {
    call_of("", message)
}

/// A call of a method whose time limit is its own.
pub fn call_of<T>(method: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadlines::of_call(method));
    request
}

/// A new `request_id`.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
