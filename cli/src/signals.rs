//! From signals to a cancellation: SIGINT and SIGTERM ask for an orderly end.
//!
//! I/O rim.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGINT or SIGTERM. The second one ends the process at
/// once with 130: a person who presses Ctrl-C again does not want to wait.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn shutdown() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tracing::info!(signal = name, "shutting down");
        cancelled.cancel();
        // Only the terminal's signal is hurried: orchestrators repeat SIGTERM without meaning it.
        interrupt.recv().await;
        std::process::exit(130);
    });
    Ok(token)
}
