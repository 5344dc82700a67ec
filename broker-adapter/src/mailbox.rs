//! The third face of a broker: best-effort messages to whoever listens at an address.
//!
//! Replies, commands and announcements travel here. They may be lost, doubled, late and out of order, and everything
//! above is built for that; what is delivered is whole, of any size. An address is a text such as `node/edge-a`; all
//! that are subscribed when a message arrives get it.

use bytes::Bytes;
use futures_util::stream::BoxStream;

/// Sends and receives best-effort messages.
pub trait Mailbox: Send + Sync + 'static {
    /// Sends; does not wait, and does not say whether it arrived. Beyond a bound of waiting bytes, drops.
    fn send(&self, to: &str, message: Bytes);
    /// Everything that is sent to `address` from about now on; comes back by itself after a broken connection.
    /// A subscriber that does not keep up loses messages.
    fn subscribe(&self, address: &str) -> BoxStream<'static, Bytes>;
}
