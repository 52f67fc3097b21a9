//! A call of the gRPC services inside of this process: encoded messages in and out.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status};

use crate::grpc::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};

/// Headers that mean in gRPC what they mean in HTTP; others stay behind.
const PASSED_ON: [&str; 5] = ["authorization", "x-request-id", "user-agent", "traceparent", "tracestate"];

/// A request of an encoded message, with the caller's headers and address.
pub(super) fn request(message: Bytes, headers: &HeaderMap, peer: Option<SocketAddr>) -> Request<Bytes> {
    let mut request = Request::new(message);
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        passed.extend(headers.get_all(name).iter().map(|value| (name.parse().ok(), value.clone())));
    }
    *request.metadata_mut() = MetadataMap::from_headers(passed);
    // Where gRPC's own connections leave the caller's address.
    request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: peer });
    request
}

/// Calls a method that gives one answer.
pub(super) async fn unary(
    services: Routes,
    path: &str,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Status> {
    let (mut client, path) = client(services, path).await?;
    client.unary(request, path, Encoded).await
}

/// Calls a method that gives a stream of answers.
pub(super) async fn streaming(
    services: Routes,
    path: &str,
    request: Request<Bytes>,
) -> Result<Response<Streaming<Bytes>>, Status> {
    let (mut client, path) = client(services, path).await?;
    client.server_streaming(request, path, Encoded).await
}

async fn client(services: Routes, path: &str) -> Result<(Grpc<Routes>, PathAndQuery), Status> {
    let path = path.parse().map_err(|_| Status::internal(format!("{path} is no path")))?;
    let mut client = Grpc::new(services)
        .max_encoding_message_size(REQUEST_BYTES_MAX)
        .max_decoding_message_size(ANSWER_BYTES_MAX);
    client.ready().await.map_err(|never: Infallible| -> Status { match never {} })?;
    Ok((client, path))
}

/// Messages that are encoded already.
#[derive(Debug, Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(buffer, message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length)))
    }
}
