//! The real world: the operating system's clock, randomness, sockets and threads.
//!
//! The only module (with the tests of real processes) that may call what `clippy.toml` disallows.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use rand::RngCore;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::AbortHandle;

use super::{Duplex, Listener, Shell, TaskSet, World};

/// A tenth of the processor, where others want it too.
const BLOCKING_NICENESS: i32 = 10;

/// The operating system.
struct Real {
    began: Instant,
}

/// The shell of a real process, and the set that owns its tasks: keep it for as long as the process shall live.
#[must_use]
pub fn process() -> (Shell, TaskSet) {
    let set = TaskSet::new();
    (Shell::new(Arc::new(Real { began: Instant::now() }), set.tasks()), set)
}

/// Starts a task on the runtime of the caller. Only [`super::Tasks`] calls this.
pub(super) fn start_task(task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    tokio::spawn(task).abort_handle()
}

/// Starts a thread that lasts as long as its work; for the embedded log's committer.
///
/// # Errors
/// If the operating system has no thread left.
pub fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

#[async_trait]
impl World for Real {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u128 {
        let mut bytes = [0u8; 16];
        rand::rng().fill_bytes(&mut bytes);
        u128::from_be_bytes(bytes)
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        Ok(Box::new(RealListener { listener, address }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Duplex>> {
        if let Some(path) = address.strip_prefix("unix:") {
            return Ok(Box::new(UnixStream::connect(path).await?));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    /// What is long gives way to what is short: states are hashed, stored and read back while requests are served.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(|| {
            // On Linux this is the calling thread alone, and a second time is no change. Without it, it is only less smooth.
            let _ = rustix::process::setpriority_process(None, BLOCKING_NICENESS);
            work();
        });
    }
}

struct RealListener {
    listener: TcpListener,
    address: String,
}

#[async_trait]
impl Listener for RealListener {
    async fn accept(&mut self) -> io::Result<Box<dyn Duplex>> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_unix_socket_is_connected_to_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (shell, _tasks) = process();
        let mut near = shell.connect(&format!("unix:{}", path.display())).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(b"to").await.unwrap();
        let mut read = [0; 2];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"to");
    }
}
