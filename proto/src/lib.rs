//! The API `millrace.v1`: messages, clients, servers and their JSON, generated from
//! `millrace/v1/*.proto` at build time.
//!
//! - [`v1`]: everything generated.
//! - [`json`]: messages in JSON, by name.
//! - [`Timestamp`]: times in them.
//! - [`DESCRIPTORS`]: what gRPC reflection serves.
//! - [`descriptors`]: the methods' HTTP bindings and the comments in there, of which the server makes its
//!   REST routes and the OpenAPI document.

pub mod descriptors;
pub mod json;
mod time;

use std::fmt;

pub use time::Timestamp;

/// The generated messages, clients and servers. Their `serde` form is proto3 JSON with the fields'
/// names as in the `.proto` files; 64-bit integers are strings, as that standard has it.
#[allow(missing_docs, clippy::all, clippy::panic, clippy::unwrap_used, clippy::redundant_clone)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/millrace.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/millrace.v1.serde.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of the API, imports and comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/millrace.v1.descriptors.bin"));

impl fmt::Debug for v1::PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::ClickhouseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickhouseConfig")
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::ApplyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyRequest")
            .field("dry_run", &self.dry_run)
            .field("prune", &self.prune)
            .field("drop_destination", &self.drop_destination)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::CreateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateTokenResponse").field("token", &self.token).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::v1;

    #[test]
    fn a_mirror_in_json_is_what_the_command_line_promises() {
        let mirror = v1::Mirror {
            name: "shop".into(),
            state: v1::mirror::State::Running.into(),
            tables: vec![v1::Table {
                source: "public.orders".into(),
                destination: "orders".into(),
                state: v1::table::State::Streaming.into(),
                rows_copied: 1 << 60,
                ..Default::default()
            }],
            ..Default::default()
        };
        let json = serde_json::to_value(&mirror).unwrap();
        assert_eq!(json["name"], "shop");
        assert_eq!(json["state"], "RUNNING");
        assert_eq!(json["tables"][0]["source"], "public.orders");
        assert_eq!(json["tables"][0]["state"], "STREAMING");
        assert_eq!(json["tables"][0]["rows_copied"], "1152921504606846976");
        assert_eq!(json["tables"][0]["deletes"], "0");
        assert_eq!(serde_json::from_value::<v1::Mirror>(json).unwrap(), mirror);
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let postgres = v1::PostgresConfig { password: Some("hunter2".into()), ..Default::default() };
        let request = v1::CreatePeerRequest {
            peer: Some(v1::Peer { config: Some(v1::peer::Config::Postgres(postgres)), ..Default::default() }),
            ..Default::default()
        };
        assert!(!format!("{request:?}").contains("hunter2"));
        let apply = v1::ApplyRequest { document: "password: hunter2".into(), ..Default::default() };
        assert!(!format!("{apply:?}").contains("hunter2"));
    }
}
