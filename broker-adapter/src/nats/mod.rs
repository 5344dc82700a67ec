//! The NATS adapter: one JetStream stream per log, checkpoints in a JetStream object store, mail on core NATS subjects.
//!
//! Acknowledged means: JetStream's publish acknowledgement, which a server gives when it has written the message, on one node or on a
//! quorum of the stream's replicas. Whether *written* means fsynced is the server's `sync_interval`: what the operator demands as
//! `durability` is verified ([`durability`]), and `usage()` says in one sentence what an acknowledgement is worth here.
//! ```text
//! link        four connections and what becomes of them      settings   the stream of a log, made or verified at every connect
//! appends     pipelined publishes, every ack awaited          reads      an ordered consumer with our own checks and watchdog
//! objects     the checkpoint store                            post       mail, in parts above the server's max_payload
//! ```
//! async-nats opens its own sockets and tasks, so this adapter is for the real world only.

pub mod options;

#[cfg(feature = "nats")]
mod api;
#[cfg(feature = "nats")]
mod appends;
#[cfg(feature = "nats")]
mod durability;
#[cfg(feature = "nats")]
mod lanes;
#[cfg(feature = "nats")]
mod link;
#[cfg(feature = "nats")]
mod log;
#[cfg(feature = "nats")]
mod names;
#[cfg(feature = "nats")]
mod objects;
#[cfg(feature = "nats")]
mod parts;
#[cfg(feature = "nats")]
mod post;
#[cfg(feature = "nats")]
mod reads;
#[cfg(feature = "nats")]
mod settings;
#[cfg(feature = "nats")]
mod window;

pub use options::NatsOptions;

#[cfg(feature = "nats")]
mod broker {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::link::Link;
    use super::log::NatsLog;
    use super::objects::NatsStore;
    use super::options::NatsOptions;
    use super::post::NatsMail;
    use crate::broker::{Broker, ConnectError};
    use crate::log::MessageLog;
    use crate::mailbox::Mailbox;
    use crate::shell::Shell;
    use crate::store::CheckpointStore;

    /// A connection to one NATS server or cluster.
    pub struct NatsBroker {
        link: Link,
        store: Arc<NatsStore>,
        mail: Arc<NatsMail>,
    }

    impl NatsBroker {
        /// Reaches `nats://[USER:PASSWORD@]HOST:PORT[,…]`; waits a few seconds for a server that is about to start.
        ///
        /// # Errors
        /// [`ConnectError`]: nobody answers, the credentials are wrong, JetStream is off, a setting must be mended.
        pub async fn connect(url: &str, options: &NatsOptions, shell: &Shell) -> Result<NatsBroker, ConnectError> {
            let link = Link::open(url, options, shell).await?;
            let store = Arc::new(NatsStore::open(link.clone()).await?);
            let mail = Arc::new(NatsMail::start(link.clone()));
            Ok(NatsBroker { link, store, mail })
        }
    }

    impl Broker for NatsBroker {
        fn log(&self, name: &str) -> BoxFuture<'static, Result<Arc<dyn MessageLog>, ConnectError>> {
            let (link, name) = (self.link.clone(), name.to_owned());
            async move {
                let log: Arc<dyn MessageLog> = Arc::new(NatsLog::open(link, &name).await?);
                Ok(log)
            }
            .boxed()
        }

        fn store(&self) -> Arc<dyn CheckpointStore> {
            self.store.clone()
        }

        fn mailbox(&self) -> Arc<dyn Mailbox> {
            self.mail.clone()
        }

        fn url(&self) -> String {
            self.link.url().to_owned()
        }
    }
}

#[cfg(feature = "nats")]
pub use broker::NatsBroker;
