//! A TCP proxy before a Kafka server that can lose an acknowledgement: it passes a produce request on, and cuts the connection
//! before the answer comes back.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::server::free_port;

/// In Kafka's protocol, after the length of the request.
const PRODUCE: [u8; 2] = [0, 0];
/// The server has appended by then.
const APPENDED: Duration = Duration::from_millis(300);

pub struct Proxy {
    address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    server: OnceLock<String>,
    cut: AtomicBool,
    cuts: AtomicUsize,
}

impl Proxy {
    pub fn listen() -> Proxy {
        let address = format!("127.0.0.1:{}", free_port());
        let listener = TcpListener::bind(&address).expect("it is free");
        let state = Arc::new(State::default());
        let accepting = state.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = accepting.clone();
                std::thread::spawn(move || state.serve(client));
            }
        });
        Proxy { address, state }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn forward_to(&self, server: String) {
        self.state.server.set(server).expect("it is told once");
    }

    pub fn cut_behind_the_next_produce(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
    }

    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

impl State {
    fn serve(&self, client: TcpStream) {
        let Some(Ok(server)) = self.server.get().map(TcpStream::connect) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(mut back), Ok(mut answers)) = (client.try_clone(), server.try_clone()) else { return };
        std::thread::spawn(move || {
            let _ = io::copy(&mut answers, &mut back);
            let _ = back.shutdown(Shutdown::Both);
        });
        let _ = self.requests(&client, &server);
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }

    fn requests(&self, mut client: &TcpStream, mut server: &TcpStream) -> io::Result<()> {
        loop {
            let mut length = [0; 4];
            client.read_exact(&mut length)?;
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            client.read_exact(&mut request)?;
            let cut = request.starts_with(&PRODUCE) && self.cut.swap(false, Ordering::SeqCst);
            if cut {
                client.shutdown(Shutdown::Both)?;
            }
            server.write_all(&length)?;
            server.write_all(&request)?;
            if cut {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(APPENDED);
                return Ok(());
            }
        }
    }
}
