//! Saving, loading and cleaning against a store that counts, fills up or holds bad objects.

mod archives;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker_adapter::fold::Fold;
use broker_adapter::ids::{Epoch, Hash, Position, ShardId};
use broker_adapter::memory::{Delay, Faults, MemoryBroker};
use broker_adapter::shell::sim::SimWorld;
use broker_adapter::shell::{Shell, TaskSet};
use broker_adapter::store::{CheckpointStore, StoreError};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::mpsc;

use super::cleaning::Cleaning;
use super::load::Reader;
use super::pace::Pace;
use super::save::{Parts, Saved, Writer};
use super::{CheckpointError, TRANSFER_LIMIT_BYTES};
use crate::runner::Place;
use crate::service::{Connection, SavedState, state};

/// What a state of this seed begins with is different for each; the rest repeats.
type State = Arc<dyn Fn(usize) -> Option<Bytes> + Send + Sync>;

struct Bench {
    shell: Shell,
    store: Arc<Counting>,
    shard: ShardId,
    _tasks: TaskSet,
}

/// Counts what is on its way, and is full from some size on.
struct Counting {
    inner: Arc<dyn CheckpointStore>,
    on_the_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    room_bytes: AtomicUsize,
}

impl Counting {
    fn carry<T: Send + 'static>(&self, bytes: usize, call: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
        let (on_the_way, most) = (self.on_the_way.clone(), self.most.clone());
        async move {
            most.fetch_max(on_the_way.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
            let result = call.await;
            on_the_way.fetch_sub(bytes, Ordering::SeqCst);
            result
        }
        .boxed()
    }
}

impl CheckpointStore for Counting {
    fn put(&self, name: String, bytes: Bytes) -> BoxFuture<'static, Result<(), StoreError>> {
        let length = bytes.len();
        let taken = self.room_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(length));
        if taken.is_err() {
            return std::future::ready(Err(StoreError::Full("no room".to_owned()))).boxed();
        }
        self.carry(length, self.inner.put(name, bytes))
    }

    fn get(&self, name: String) -> BoxFuture<'static, Result<Bytes, StoreError>> {
        self.carry(super::CHUNK_MAX_BYTES, self.inner.get(name))
    }

    fn list(&self, prefix: String) -> BoxFuture<'static, Result<Vec<String>, StoreError>> {
        self.inner.list(prefix)
    }

    fn delete(&self, name: String) -> BoxFuture<'static, Result<(), StoreError>> {
        self.inner.delete(name)
    }
}

impl Bench {
    fn new() -> (Bench, Arc<MemoryBroker>) {
        let world = SimWorld::new(1);
        let (shell, tasks) = world.process();
        let faults = Faults { store_delay: Delay::ms(5, 50), ..Faults::default() };
        let broker = MemoryBroker::new(1, shell.clone(), faults);
        let store = Arc::new(Counting {
            inner: broker.connect("edge").store(),
            on_the_way: Arc::default(),
            most: Arc::default(),
            room_bytes: AtomicUsize::new(usize::MAX),
        });
        let shard = ShardId::whole("ledger".parse().expect("a good name"));
        (Bench { shell, store, shard, _tasks: tasks }, broker)
    }

    async fn state(&self, pieces: State) -> SavedState {
        let mut listener = self.shell.listen("service:0").await.expect("the port is free");
        let address = listener.address();
        self.shell.spawn(async move {
            // The first connection is the one for deliveries.
            let Ok(_deliveries) = listener.accept().await else { return };
            let Ok(connection) = listener.accept().await else { return };
            let service = service_fn(move |_: hyper::Request<Incoming>| {
                let pieces = pieces.clone();
                async move {
                    let stream = futures_util::stream::unfold(0, move |number| {
                        let piece = pieces(number);
                        async move { piece.map(|piece| (Ok::<_, Infallible>(Frame::data(piece)), number + 1)) }
                    });
                    Ok::<_, Infallible>(hyper::Response::new(StreamBody::new(stream)))
                }
            });
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service);
            served.await.expect("the sidecar reads it whole or breaks off");
        });
        let text = "name = 's'\nlisten = 'l'\nrun = ['x']\nstate = { kind = 'http', path = '/state' }\n";
        let config = toml::from_str(text).expect("a good service");
        let mut deliveries = Connection::open(&address, &self.shell).await.expect("it listens");
        state::save(&config, &Place::at(&address), &mut deliveries, &self.shell).await.expect("it answers")
    }

    fn parts(&self, reuse: &[&Saved]) -> Parts {
        Parts {
            shard: self.shard.clone(),
            epoch: Epoch(1),
            fold: Fold::new(),
            replies: Vec::new(),
            hash: Hash::default(),
            reuse: reuse.iter().map(|saved| (saved.position, saved.manifest)).collect(),
        }
    }

    async fn save(&self, state: State, reuse: &[&Saved]) -> Result<Saved, CheckpointError> {
        let store: Arc<dyn CheckpointStore> = self.store.clone();
        let writer = Writer { store, shell: self.shell.clone(), rate_mb_per_s: 10_000, transfer_rate_mb_per_s: None };
        writer.save(self.parts(reuse), self.state(state).await).await
    }

    fn reader(&self) -> Reader {
        Reader { store: self.store.clone(), shell: self.shell.clone() }
    }

    async fn load(&self, saved: &Saved) -> Result<u64, CheckpointError> {
        let reader = self.reader();
        let manifest = reader.manifest(&self.shard, saved.position, saved.manifest).await?;
        let (sender, mut pieces) = mpsc::channel(4);
        let pace = Pace::up_to(&self.shell, None);
        let streaming = reader.stream_state(&manifest, saved.manifest, sender, pace, |_| {});
        let counting = async {
            let mut bytes = 0;
            while let Some(piece) = pieces.recv().await {
                bytes += piece.len() as u64;
            }
            bytes
        };
        let (streamed, bytes) = futures_util::future::join(streaming, counting).await;
        streamed.map(|()| bytes)
    }

    async fn names(&self, prefix: &str) -> Vec<String> {
        self.store.list(prefix.to_owned()).await.expect("it lists")
    }
}

/// Random pieces of 1 MiB; those of `changed` are others.
fn state_of(pieces: usize, changed: std::ops::Range<usize>) -> State {
    Arc::new(move |number| {
        let mut content = vec![0; 1 << 20];
        let seed = if changed.contains(&number) { 1_000 + number } else { number } as u64;
        StdRng::seed_from_u64(seed).fill_bytes(&mut content);
        (number < pieces).then(|| content.into())
    })
}

#[tokio::test(start_paused = true)]
async fn a_transfer_holds_no_more_than_its_limit_whatever_the_states_size() {
    let (bench, _broker) = Bench::new();
    let saved = bench.save(state_of(66, 0..0), &[]).await.expect("it is saved");
    assert_eq!(saved.state_bytes, 66 << 20);
    assert_eq!(bench.load(&saved).await, Ok(66 << 20));
    let most = bench.store.most.load(Ordering::SeqCst);
    assert!(most > 1 << 20, "nothing was pipelined: {most}");
    assert!(most <= TRANSFER_LIMIT_BYTES / 4, "each byte on its way stands in memory four times at most: {most}");
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_is_stored_again() {
    let (bench, _broker) = Bench::new();
    let first = bench.save(state_of(24, 0..0), &[]).await.expect("it is saved");
    assert!(first.stored_bytes >= first.state_bytes && first.reused_bytes == 0, "{first:?}");
    let second = bench.save(state_of(24, 10..12), &[&first]).await.expect("it is saved");
    assert!(second.stored_bytes < 6 << 20, "{second:?}");
    assert!(second.reused_bytes > 18 << 20, "{second:?}");
    assert_eq!(bench.load(&second).await, Ok(24 << 20));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_a_reader_found_bad_or_that_is_gone_is_stored_anew() {
    let (bench, broker) = Bench::new();
    let first = bench.save(state_of(8, 0..0), &[]).await.expect("it is saved");
    let manifest = bench.reader().manifest(&bench.shard, first.position, first.manifest).await.expect("it is there");
    let (bad, gone) = (manifest.state[1].name(&bench.shard), manifest.state[2].name(&bench.shard));
    assert!(broker.damage_object(&bad));
    bench.store.delete(gone).await.expect("it deletes");
    let error = bench.load(&first).await.expect_err("a chunk is damaged");
    assert!(matches!(&error, CheckpointError::Damaged { .. }) && error.to_string().contains(&bad), "{error}");
    let second = bench.save(state_of(8, 0..0), &[&first]).await.expect("it is saved");
    assert!(second.stored_bytes > 0 && second.reused_bytes > 0, "{second:?}");
    assert_eq!(bench.load(&second).await, Ok(8 << 20));
}

#[tokio::test(start_paused = true)]
async fn a_save_into_a_full_store_fails_and_leaves_nothing_there() {
    let (bench, _broker) = Bench::new();
    bench.store.room_bytes.store(5 << 20, Ordering::SeqCst);
    let error = bench.save(state_of(16, 0..0), &[]).await.expect_err("there is no room");
    assert!(matches!(error, CheckpointError::Store(StoreError::Full(_))), "{error}");
    assert_eq!(bench.names("").await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn cleaning_removes_what_no_kept_checkpoint_names_and_nothing_else() {
    let (bench, _broker) = Bench::new();
    // All at position 0, in the order in which the log would count them: only what is kept matters.
    let dropped = bench.save(state_of(6, 0..0), &[]).await.expect("it is saved");
    let kept = bench.save(state_of(6, 0..2), &[&dropped]).await.expect("it is saved");
    let cleaning = |sweep_before| Cleaning {
        reader: bench.reader(),
        shard: bench.shard.clone(),
        kept: vec![(Position::ZERO, kept.manifest)],
        sweep_before,
    };
    assert!(cleaning(None).run().await.expect("the store answers") > 1);
    assert_eq!(bench.load(&kept).await, Ok(6 << 20));
    assert!(bench.load(&dropped).await.is_err());
    let chunks = bench.reader().manifest(&bench.shard, Position::ZERO, kept.manifest).await.expect("it is there");
    let mut named: Vec<String> = chunks.chunks().map(|chunk| chunk.name(&bench.shard)).collect();
    named.sort();
    named.dedup();
    assert_eq!(bench.names("chunk/").await, named);
    // What a save left that never got a manifest.
    let orphan = format!("chunk/ledger.0/{}-1-{}", Hash::of(b"x"), bench.shell.random());
    bench.store.put(orphan.clone(), Bytes::from_static(b"x")).await.expect("it takes it");
    assert_eq!(cleaning(Some(Epoch(1))).run().await, Ok(0), "it may be a save under way");
    assert_eq!(cleaning(Some(Epoch(2))).run().await, Ok(1));
    assert_eq!(bench.load(&kept).await, Ok(6 << 20));
}
