//! The NATS adapter on real servers.

mod cluster;
mod conformance;
mod faults;
mod proxy;
mod security;
pub mod server;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::mailbox::Mailbox;
use broker_adapter::shell::Shell;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

/// Sends until something arrives.
async fn first_mail(shell: &Shell, mail: &Arc<dyn Mailbox>, to: &str, listener: &mut BoxStream<'static, Bytes>) {
    loop {
        mail.send(to, Bytes::from_static(b"hello"));
        if shell.within(Duration::from_millis(100), listener.next()).await.is_some() {
            return;
        }
    }
}
