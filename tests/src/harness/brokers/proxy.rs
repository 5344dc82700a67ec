//! A TCP proxy in front of a single server: it loses the acknowledgement of an append, or lets a reader have little at a time.
//!
//! A lost acknowledgement: the request that appends to the service's log is passed on whole, the server answers, the answer is
//! swallowed and the connection cut. So the record is there, and whoever sent it does not know.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use broker_adapter::shell::{Duplex, Shell};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::BrokerKind;
use crate::harness::{Port, free_port};

/// The server has answered by then.
const ANSWERED: Duration = Duration::from_millis(300);
/// How often a slow reader gets something.
const SLOW_EVERY: Duration = Duration::from_millis(100);
/// In Kafka's protocol, after the length of the request.
const PRODUCE: [u8; 2] = [0, 0];

/// A running proxy; it ends with the test's shell.
pub struct Proxy {
    address: String,
    _port: Port,
    state: Arc<State>,
}

struct State {
    shell: Shell,
    kind: BrokerKind,
    server: String,
    cut: AtomicBool,
    cuts: AtomicU64,
    /// Bytes of answers that were swallowed.
    swallowed: AtomicU64,
    /// Bytes of answers a second and connection; 0 for as many as come.
    rate_bytes: AtomicU64,
    /// Bytes of answers passed while they were slow.
    slowly: AtomicU64,
}

impl Proxy {
    /// Forwards to the address of a server.
    pub(super) async fn start(shell: &Shell, kind: BrokerKind, server: &str) -> Proxy {
        let port = free_port();
        let address = port.address();
        let mut listener = shell.listen(&address).await.expect("the port is ours");
        let state = Arc::new(State {
            shell: shell.clone(),
            kind,
            server: server.to_owned(),
            cut: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
            rate_bytes: AtomicU64::new(0),
            slowly: AtomicU64::new(0),
        });
        let accepting = state.clone();
        shell.spawn(async move {
            while let Ok(near) = listener.accept().await {
                let state = accepting.clone();
                accepting.shell.spawn(async move {
                    // A server that is down: the connection ends, as it would without us.
                    if let Ok(far) = state.shell.connect(&state.server).await {
                        let _ = state.pass(near, far).await;
                    }
                });
            }
        });
        Proxy { address, _port: port, state }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Loses the acknowledgement of the next append to the service's log.
    pub fn lose_the_next_acknowledgement(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
    }

    /// How many were lost, and how many bytes of answers.
    #[must_use]
    pub fn lost(&self) -> (u64, u64) {
        (self.state.cuts.load(Ordering::SeqCst), self.state.swallowed.load(Ordering::SeqCst))
    }

    /// From now on each connection gives so many bytes of answers a second; 0 for all.
    pub fn slow_down(&self, rate_bytes: u64) {
        self.state.rate_bytes.store(rate_bytes, Ordering::SeqCst);
    }

    /// How many bytes passed slowly.
    #[must_use]
    pub fn passed_slowly(&self) -> u64 {
        self.state.slowly.load(Ordering::SeqCst)
    }
}

impl State {
    async fn pass(&self, near: Box<dyn Duplex>, far: Box<dyn Duplex>) -> io::Result<()> {
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
            (tokio::io::split(near), tokio::io::split(far));
        let swallowing = AtomicBool::new(false);
        let requests = async {
            loop {
                let request = self.request(&mut from_near).await?;
                let cut = self.appends(&request) && self.cut.swap(false, Ordering::SeqCst);
                // Before the server can answer.
                swallowing.fetch_or(cut, Ordering::SeqCst);
                to_far.write_all(&request).await?;
                if cut {
                    self.shell.sleep(ANSWERED).await;
                    self.cuts.fetch_add(1, Ordering::SeqCst);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        };
        let answers = async {
            let mut bytes = vec![0; 65_536];
            loop {
                let rate = self.rate_bytes.load(Ordering::SeqCst);
                let share = usize::try_from(rate / 10).unwrap_or(usize::MAX);
                let most = if rate == 0 { bytes.len() } else { share.clamp(1, bytes.len()) };
                let read = from_far.read(&mut bytes[..most]).await?;
                if read == 0 {
                    return Ok(());
                }
                if swallowing.load(Ordering::SeqCst) {
                    self.swallowed.fetch_add(read as u64, Ordering::SeqCst);
                    continue;
                }
                if rate > 0 {
                    self.slowly.fetch_add(read as u64, Ordering::SeqCst);
                    self.shell.sleep(SLOW_EVERY).await;
                }
                to_near.write_all(&bytes[..read]).await?;
            }
        };
        tokio::select! {
            biased;
            ended = requests => ended,
            ended = answers => ended,
        }
    }

    /// The next request: whole for Kafka, as it comes for others.
    async fn request(&self, from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
        if self.kind.is_kafka() {
            let length = from.read_u32().await?;
            let mut request = length.to_be_bytes().to_vec();
            request.resize(4 + length as usize, 0);
            from.read_exact(&mut request[4..]).await?;
            return Ok(request);
        }
        let mut request = vec![0; 65_536];
        let read = from.read(&mut request).await?;
        request.truncate(read);
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(request) }
    }

    /// Whether it appends to the service's log.
    fn appends(&self, request: &[u8]) -> bool {
        let holds = |text: &[u8]| request.windows(text.len()).any(|part| part == text);
        match self.kind.is_kafka() {
            true => request[4..].starts_with(&PRODUCE) && holds(b".shards."),
            false => holds(b"PUB segue.log.ledger"),
        }
    }
}
