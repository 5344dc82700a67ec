//! A TCP proxy in front of a server, which loses answers and cuts connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Ends with its runtime.
pub struct Proxy {
    port: u16,
    fault: Arc<Fault>,
}

#[derive(Default)]
struct Fault {
    swallowing: AtomicBool,
    swallowed: AtomicUsize,
    cut: Notify,
}

impl Proxy {
    pub async fn start(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let port = listener.local_addr().expect("an address").port();
        let fault = Arc::new(Fault::default());
        let shared = fault.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await {
                    tokio::spawn(pass(near, far, shared.clone()));
                }
            }
        });
        Proxy { port, fault }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// From now on requests arrive and answers do not.
    pub fn swallow_answers(&self) {
        self.fault.swallowing.store(true, Ordering::SeqCst);
    }

    /// Cuts all connections; later ones are good. Tells how many bytes of answers were lost.
    pub fn cut(&self) -> usize {
        self.fault.swallowing.store(false, Ordering::SeqCst);
        self.fault.cut.notify_waiters();
        self.fault.swallowed.load(Ordering::SeqCst)
    }
}

async fn pass(near: TcpStream, far: TcpStream, fault: Arc<Fault>) {
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
    let requests = async { tokio::io::copy(&mut from_near, &mut to_far).await.map(drop) };
    let answers = async {
        let mut bytes = vec![0; 65_536];
        loop {
            let read = from_far.read(&mut bytes).await?;
            if read == 0 {
                return std::io::Result::Ok(());
            }
            if fault.swallowing.load(Ordering::SeqCst) {
                fault.swallowed.fetch_add(read, Ordering::SeqCst);
            } else {
                to_near.write_all(&bytes[..read]).await?;
            }
        }
    };
    tokio::select! {
        _ = requests => {}
        _ = answers => {}
        () = fault.cut.notified() => {}
    }
}
