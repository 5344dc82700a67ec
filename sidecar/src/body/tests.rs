//! Names, and what a fold says of them; puts and fetches on a memory broker.

use broker_adapter::ids::{Epoch, Incarnation, Replica, Session};
use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::record::{Cause, Close, Entry, Fence, Header, Key, Record, SettingsRecord, Writer};
use broker_adapter::settings::Settings;
use broker_adapter::shell::TaskSet;
use broker_adapter::shell::sim::SimWorld;

use super::*;

const K: u64 = 8;

fn shard() -> ShardId {
    ShardId::whole("Ledger".parse().expect("a good name"))
}

fn body_name(session: u128, base: u64) -> BodyName {
    let message = MessageName { session: Session::from_bits(session), sequence: Sequence::FIRST };
    BodyName { message, base: Count(base) }
}

fn request(body: usize, headers: usize) -> Request {
    let header = Header { name: "x".to_owned(), value: Bytes::from(vec![b'y'; headers]) };
    let body = Body::Inline(Bytes::from(vec![0; body]));
    Request { method: "POST".to_owned(), path: "/x".to_owned(), headers: vec![header], body }
}

fn replica() -> Replica {
    Replica { node: "a".parse().expect("a good name"), incarnation: Incarnation::from_bits(1) }
}

/// A log that remembers K counts.
struct Told {
    fold: Fold,
}

impl Told {
    fn new() -> Told {
        let mut told = Told { fold: Fold::new() };
        let fence = Fence { epoch: Epoch(1), owner: replica(), cause: Cause::First, migration: None, retires: None };
        told.read(Record::Fence(fence));
        let writer = Writer { epoch: Epoch(1), replica: replica() };
        let settings = Settings { keys_remembered: K, ..Settings::default() };
        told.read(Record::Settings(SettingsRecord { writer, settings }));
        told
    }

    fn read(&mut self, record: Record) {
        let position = self.fold.position().next();
        self.fold.observe(&Entry { position, appended_ms: 0, crc: 0, record });
    }

    /// One message in a session of its own.
    fn message(&mut self, session: u128, base: u64) {
        let name = body_name(session, base).message;
        let key = Key::Own { count: Count(base) };
        let request = Request { body: Body::Stored { hash: Hash::of(b""), length: 0 }, ..request(0, 0) };
        let base = Some(Count(base));
        self.read(Record::Message(Box::new(Message { name, base, key, source: None, ingress: replica(), request })));
    }
}

#[test]
fn a_body_is_found_by_session_sequence_and_base_in_the_names_of_its_parts() {
    let name = body_name(0xabc, 41);
    let parts = name.parts(&shard(), PART_BYTES as u64 + 1);
    assert_eq!(parts.len(), 2);
    assert!(parts.iter().all(|part| BodyName::parse(&shard(), part) == Some(name)), "{parts:?}");
    assert_eq!(name.parts(&shard(), PART_BYTES as u64).len(), 1);
    let other = ShardId::whole("ledger".parse().expect("a good name"));
    for bad in ["", "body/ledger.0/x/0000", &format!("{}x", body_prefix(&shard())), &other.to_string()] {
        assert_eq!(BodyName::parse(&shard(), bad), None, "{bad}");
    }
    assert_eq!(BodyName::parse(&other, &parts[0]), None, "another service's");
}

#[test]
fn a_record_may_count_until_its_session_is_known_or_its_base_is_k_counts_old() {
    let mut told = Told::new();
    let (ours, lost, closed) = (body_name(1, 0), body_name(2, 0), body_name(3, 0));
    assert!([ours, lost, closed].iter().all(|name| name.may_count(&told.fold)));
    told.message(1, 0);
    assert!(!ours.may_count(&told.fold), "it counted, and counts once");
    let name = MessageName { session: Session::from_bits(4), sequence: Sequence::FIRST };
    told.read(Record::Close(Close { name, base: Some(Count(1)), closes: closed.message.session }));
    assert!(!closed.may_count(&told.fold));
    for session in 10..10 + u128::from(K) {
        assert_eq!(lost.may_count(&told.fold), told.fold.count().0 < K, "{}", told.fold.count().0);
        told.message(session, told.fold.count().0);
    }
    let before = told.fold.count();
    told.message(2, 0);
    assert_eq!(told.fold.count(), before, "as the fold judges it: it is void");
    for session in 100..100 + 2 * u128::from(K) {
        told.message(session, told.fold.count().0);
    }
    assert_eq!(told.fold.session(ours.message.session), None, "it is forgotten");
    assert!(!ours.may_count(&told.fold), "and does not begin anew");
    assert!(body_name(5, told.fold.count().0 + 3).may_count(&told.fold), "its ingress has read further than this fold");
}

#[test]
fn what_a_record_could_not_hold_is_too_large_and_so_is_what_holds_up_others() {
    let limit = 128 << 10;
    assert!(!is_too_large(&request(100 << 10, 0), limit));
    assert!(is_too_large(&request(128 << 10, 0), limit));
    assert!(is_too_large(&request(100 << 10, 28 << 10), limit), "headers count too");
    let inline = usize::try_from(INLINE_LIMIT_BYTES).expect("small");
    assert!(!is_too_large(&request(inline, 0), 2 << 20));
    assert!(is_too_large(&request(inline + 1, 0), 2 << 20));
}

#[test]
fn what_is_not_too_large_fits() {
    for headers in [0, 1, 50, 1_000] {
        let mut request = request(10_000, 3);
        request.headers = vec![request.headers[0].clone(); headers];
        let ingress = Replica { node: "n".repeat(63).parse().expect("a good name"), ..replica() };
        let key = Key::Client { key: "k".repeat(256) };
        let name = body_name(u128::MAX, 0).message;
        let base = Some(Count(u64::MAX));
        let message = Message { name, base, key, source: None, ingress, request: request.clone() };
        let bytes = broker_adapter::record::wire::encode(&Record::Message(Box::new(message))).bytes.len() as u64;
        assert!(is_too_large(&request, bytes - 1), "{headers} headers: {bytes} bytes");
    }
}

/// Bodies on a memory broker.
struct Bench {
    broker: Arc<MemoryBroker>,
    bodies: Bodies,
    _tasks: TaskSet,
}

fn bench(faults: Faults) -> Bench {
    let (shell, tasks) = SimWorld::new(1).process();
    let broker = MemoryBroker::new(1, shell.clone(), faults);
    let store = broker.connect("a").store();
    Bench { broker, bodies: Bodies { store, shard: shard(), shell }, _tasks: tasks }
}

fn content(bytes: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from(at % 251).expect("below 256")).collect::<Vec<u8>>().into()
}

#[tokio::test(start_paused = true)]
async fn a_body_of_any_length_comes_back_whole_over_a_store_that_fails_now_and_then() {
    let bench = bench(Faults { store_failed_per_mille: 300, ..Faults::rough() });
    for bytes in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES] {
        let name = body_name(bytes as u128 + 1, 0);
        let hash = bench.bodies.put(name, content(bytes), |_| ()).await.expect("it is stored");
        assert_eq!(bench.bodies.fetch(name, hash, bytes as u64).await, Ok(content(bytes)));
        assert_eq!(hash, Hash::of(&content(bytes)));
    }
    assert!(bench.broker.fired()["store_failed_per_mille"] > 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_damaged_or_another_is_an_error() {
    let bench = bench(Faults::calm());
    let name = body_name(1, 0);
    let length = PART_BYTES as u64 + 10;
    let body = content(PART_BYTES + 10);
    let hash = bench.bodies.put(name, body, |_| ()).await.expect("it is stored");
    let wrong = async |hash, length| bench.bodies.fetch(name, hash, length).await.expect_err("it is wrong").0;
    assert!(wrong(Hash::of(b"other"), length).await.contains(&hash.to_string()));
    assert!(wrong(hash, length - 1).await.contains("instead of"));
    assert!(wrong(hash, BODY_LIMIT_MAX_BYTES + 1).await.contains("more than a body may have"));
    let parts = name.parts(&shard(), length);
    assert!(bench.broker.damage_object(&parts[1]));
    assert!(wrong(hash, length).await.contains(&parts[1]));
    bench.bodies.remove(parts.clone()).await;
    assert!(wrong(hash, length).await.contains(&parts[0]));
    assert_eq!(bench.broker.objects("").0.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_full_is_waited_for_and_the_reason_is_told() {
    let bench = bench(Faults::calm());
    bench.broker.fill_store(true);
    let reasons = std::sync::Mutex::new(Vec::new());
    let tell = |error: &StoreError| reasons.lock().expect("nothing panics under this lock").push(error.clone());
    let put = bench.bodies.put(body_name(1, 0), content(10), tell);
    let emptied = async {
        bench.bodies.shell.sleep(Duration::from_secs(10)).await;
        bench.broker.fill_store(false);
    };
    let (put, ()) = futures_util::future::join(put, emptied).await;
    assert_eq!(put, Ok(Hash::of(&content(10))));
    let reasons = reasons.into_inner().expect("nobody panicked");
    assert!(matches!(reasons[..], [StoreError::Full(_), ..]) && reasons.len() < 20, "{reasons:?}");
}
