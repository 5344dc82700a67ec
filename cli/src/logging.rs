//! What processes tell of themselves: lines on standard error, chosen by `RUST_LOG`, coloured on a terminal only.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Begins to log. `default` is what is shown without `RUST_LOG`, as in `info`.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
