//! A TCP proxy before a Kafka server that can lose an acknowledgement: it passes a produce request on, and cuts the connection
//! before the answer comes back; or says in the answer that the producer's numbers are out of order, which ends that producer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::server::free_port;

/// In Kafka's protocol, after the length of the request.
const PRODUCE: [u8; 2] = [0, 0];
/// From this version on, lengths are variable and there are tags.
const FLEXIBLE_PRODUCE: u16 = 9;
/// From this version on, a topic's identity takes the place of its name.
const PRODUCE_BY_ID: u16 = 13;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
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
    spoil: AtomicBool,
    spoilt: AtomicUsize,
}

/// The answer to a produce request: what the request's number and version were.
struct Spoilt {
    correlation: [u8; 4],
    version: u16,
}

type Awaited = Arc<Mutex<Option<Spoilt>>>;

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

    /// The next produce request is appended, and its answer says that it was out of order.
    pub fn spoil_the_next_answer(&self) {
        self.state.spoil.store(true, Ordering::SeqCst);
    }

    pub fn spoilt(&self) -> usize {
        self.state.spoilt.load(Ordering::SeqCst)
    }

    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

impl State {
    fn serve(self: Arc<Self>, client: TcpStream) {
        let Some(Ok(server)) = self.server.get().map(TcpStream::connect) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(back), Ok(answers)) = (client.try_clone(), server.try_clone()) else { return };
        let awaited = Awaited::default();
        let (state, expected) = (self.clone(), awaited.clone());
        std::thread::spawn(move || {
            let _ = state.answers(&answers, &back, &expected);
            let _ = back.shutdown(Shutdown::Both);
        });
        let _ = self.requests(&client, &server, &awaited);
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }

    fn requests(&self, client: &TcpStream, mut server: &TcpStream, awaited: &Awaited) -> io::Result<()> {
        loop {
            let request = frame(client)?;
            let is_produce = request[4..].starts_with(&PRODUCE);
            let cut = is_produce && self.cut.swap(false, Ordering::SeqCst);
            if cut {
                client.shutdown(Shutdown::Both)?;
            }
            if is_produce && self.spoil.swap(false, Ordering::SeqCst) {
                let version = u16::from_be_bytes([request[6], request[7]]);
                let correlation = request[8..12].try_into().expect("four bytes");
                *awaited.lock().unwrap() = Some(Spoilt { correlation, version });
            }
            server.write_all(&request)?;
            if cut {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(APPENDED);
                return Ok(());
            }
        }
    }

    fn answers(&self, server: &TcpStream, mut client: &TcpStream, awaited: &Awaited) -> io::Result<()> {
        loop {
            let mut answer = frame(server)?;
            let spoilt = awaited.lock().unwrap().take_if(|spoilt| answer[4..].starts_with(&spoilt.correlation));
            if let Some(spoilt) = spoilt {
                let error = spoilt.error_at(&answer);
                answer[error..error + 2].copy_from_slice(&OUT_OF_ORDER_SEQUENCE_NUMBER.to_be_bytes());
                self.spoilt.fetch_add(1, Ordering::SeqCst);
            }
            client.write_all(&answer)?;
        }
    }
}

/// A request or an answer with its length.
fn frame(mut from: &TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame)?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    frame.resize(4 + length as usize, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

impl Spoilt {
    /// Where the error of the answer's first partition stands: behind length and number, one topic, one partition and its index.
    fn error_at(&self, answer: &[u8]) -> usize {
        if self.version < FLEXIBLE_PRODUCE {
            let topic = 8 + 4;
            let name = usize::from(u16::from_be_bytes([answer[topic], answer[topic + 1]]));
            return topic + 2 + name + 4 + 4;
        }
        // No tags, one topic.
        let topic = 8 + 1 + 1;
        let name = if self.version < PRODUCE_BY_ID { usize::from(answer[topic]) } else { 16 };
        topic + name + 1 + 4
    }
}
