//! The client of the API: what `peer`, `mirror` and `apply` share.
//!
//! `link`: the connection, with the token.
//!
//! I/O rim.

pub mod confirm;
pub mod contexts;
pub mod figures;
mod link;
pub mod output;
pub mod style;

use clap::Args;
use millrace_proto::v1::access_service_client::AccessServiceClient;
use millrace_proto::v1::mirror_service_client::MirrorServiceClient;
use millrace_proto::v1::peer_service_client::PeerServiceClient;
use millrace_proto::v1::system_service_client::SystemServiceClient;
use millrace_server::deadlines;
use millrace_terms::Error;

use self::link::Link;
pub use self::link::LinkArguments;
use self::output::Output;

/// Bytes of one answer at most: a page of a thousand wide tables has a few MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How to reach the server, and how to show what it says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Client")]
pub struct ClientArguments {
    /// How to reach the server.
    #[command(flatten)]
    pub link: LinkArguments,
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
    pub peers: PeerServiceClient<Link>,
    /// Mirrors.
    pub mirrors: MirrorServiceClient<Link>,
    /// Tokens and the audit log.
    pub access: AccessServiceClient<Link>,
    /// The installation as a whole.
    pub system: SystemServiceClient<Link>,
}

impl Client {
    /// Connects to the server.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the address is no URL or a file cannot be read; SERVER_UNREACHABLE if nothing answers
    /// there.
    pub async fn connect(link: &LinkArguments) -> Result<Self, Error> {
        let link = link.connect().await?;
        Ok(Self {
            peers: PeerServiceClient::new(link.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            mirrors: MirrorServiceClient::new(link.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            access: AccessServiceClient::new(link.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            system: SystemServiceClient::new(link).max_decoding_message_size(ANSWER_BYTES_MAX),
        })
    }
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
