//! Compiles the API: messages and services (tonic), proto3 JSON (pbjson), the table of JSON forms that
//! REST reads and writes, and the descriptors that reflection serves. No protoc is needed.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use protox::prost_reflect::DescriptorPool;

const FILES: [&str; 10] = [
    "millrace/v1/access.proto",
    "millrace/v1/batch.proto",
    "millrace/v1/doctor.proto",
    "millrace/v1/mirror.proto",
    "millrace/v1/peer.proto",
    "millrace/v1/slot.proto",
    "millrace/v1/status.proto",
    "millrace/v1/system.proto",
    "millrace/v1/system_status.proto",
    "millrace/v1/verification.proto",
];

/// The API's package.
const PACKAGE: &str = "millrace.v1";

/// Messages with secrets in them: the derived `Debug` would show them. `src/lib.rs` has ours.
const WITH_SECRETS: [&str; 5] = [
    ".millrace.v1.CreateTokenResponse",
    ".millrace.v1.PostgresConfig",
    ".millrace.v1.ClickhouseConfig",
    ".millrace.v1.TlsConfig",
    ".millrace.v1.ApplyRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=millrace");
    println!("cargo:rerun-if-changed=google");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    // Unlike the set that is passed on below, this one holds the methods' `google.api.http`.
    let encoded = compiler.encode_file_descriptor_set();
    std::fs::write(out.join("millrace.v1.descriptors.bin"), &encoded)?;
    std::fs::write(out.join("millrace.v1.codecs.rs"), codecs(&compiler.descriptor_pool())?)?;

    tonic_prost_build::configure()
        .extern_path(".google.protobuf.Timestamp", "crate::Timestamp")
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_well_known_types(true)
        // Tables and columns keep one order in JSON and in comparisons.
        .btree_map(".")
        .skip_debug(WITH_SECRETS)
        .compile_fds(compiler.file_descriptor_set())?;

    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .extern_path(".google.protobuf.Timestamp", "crate::Timestamp")
        .extern_path(".google.protobuf", "::pbjson_types")
        .btree_map(["."])
        // snake_case keys, and fields at their defaults are printed: what `-o json` promises.
        .preserve_proto_field_names()
        .emit_fields()
        .build(&[".millrace.v1"])?;
    Ok(())
}

/// A function that finds the JSON form of every message that a method takes or gives, by its name.
fn codecs(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let methods: Vec<_> = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let messages: BTreeSet<String> = methods
        .iter()
        .flat_map(|method| [method.input(), method.output()])
        .filter(|message| message.package_name() == PACKAGE)
        .map(|message| message.name().to_owned())
        .collect();
    let mut code = String::from("fn find(message: &str) -> Option<Codec> {\n    Some(match message {\n");
    for name in messages {
        writeln!(code, "        \"{PACKAGE}.{name}\" => Codec::of::<v1::{name}>(),")?;
    }
    code.push_str("        _ => return None,\n    })\n}\n");
    Ok(code)
}
