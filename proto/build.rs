//! Compiles the API: messages and services (tonic), proto3 JSON (pbjson) and the descriptors that
//! reflection serves. No protoc is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 4] = [
    "millrace/v1/mirror.proto",
    "millrace/v1/peer.proto",
    "millrace/v1/status.proto",
    "millrace/v1/system.proto",
];

/// Messages with secrets in them: the derived `Debug` would show them. `src/lib.rs` has ours.
const WITH_SECRETS: [&str; 4] = [
    ".millrace.v1.PostgresConfig",
    ".millrace.v1.ClickhouseConfig",
    ".millrace.v1.TlsConfig",
    ".millrace.v1.ApplyRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=millrace");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["."])?;
    let encoded = descriptors.encode_to_vec();
    std::fs::write(out.join("millrace.v1.descriptors.bin"), &encoded)?;

    tonic_prost_build::configure()
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_well_known_types(true)
        // Tables and columns keep one order in JSON and in comparisons.
        .btree_map(".")
        .skip_debug(WITH_SECRETS)
        .compile_fds(descriptors)?;

    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .extern_path(".google.protobuf", "::pbjson_types")
        .btree_map(["."])
        // snake_case keys, and fields at their defaults are printed: what `-o json` promises.
        .preserve_proto_field_names()
        .emit_fields()
        .build(&[".millrace.v1"])?;
    Ok(())
}
