# syntax=docker/dockerfile:1
# One image for every process: `millrace server`, `worker`, `migrate` and the client verbs.
# Base images are pinned; `cli/tests/containers.rs` checks that.

# The toolchain of rust-toolchain.toml. The C compiler of the image is what `ring` needs.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin millrace \
    && cp target/release/millrace /usr/local/bin/millrace

FROM debian:12.12-slim
# Certificates of the public authorities: managed databases are reached by TLS.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/millrace /usr/local/bin/millrace
COPY LICENSE /usr/share/doc/millrace/LICENSE
LABEL org.opencontainers.image.title="millrace" \
      org.opencontainers.image.description="Replicates PostgreSQL into ClickHouse" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://millrace.dev"
# Nobody: no file of the image belongs to this user, and the processes write none.
USER 65532:65532
# gRPC, HTTP, metrics of the server and of a worker.
EXPOSE 8112 8113 9090 9091
ENTRYPOINT ["/usr/local/bin/millrace"]
CMD ["--help"]
