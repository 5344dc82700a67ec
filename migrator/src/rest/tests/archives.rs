//! A checkpoint as one file: who gets it, what comes back into the store, and what is refused with which words.

use broker_adapter::fold::Fold;
use broker_adapter::ids::{Epoch, Hash, Id128, Position, ShardId};
use broker_adapter::memory::MemoryBroker;
use broker_adapter::record::{Checkpoint, Mark, Record, Writer};
use bytes::Bytes;
use serde_json::{Value, json};
use sidecar::checkpoint::{ChunkRef, Form, MANIFEST_VERSION, Manifest, SaveId, manifest_name};
use sidecar::command::{ReplicaState, ShardStatus, encode};

use super::super::{Access, Audit, Tokens};
use super::Server;
use crate::bench::{Manner, Raw, call_raw, replica, shard, status};

const EXPORT: &str = "/v1/services/board/checkpoints/newest/export";
const IMPORT: &str = "/v1/services/board/checkpoints/import";

/// A checkpoint 0 of the shard that lies whole in the store; its manifest and hash.
async fn checkpoint(server: &Server, shard: &ShardId, state: &'static [u8]) -> (Manifest, Hash) {
    checkpoint_at(server, shard, &Fold::new(), state).await
}

async fn checkpoint_at(server: &Server, shard: &ShardId, fold: &Fold, state: &'static [u8]) -> (Manifest, Hash) {
    let position = fold.position();
    let store = server.bench.broker.connect("test").store();
    let save = SaveId { epoch: Epoch(1), id: Id128(7) };
    let chunk = |content: &Bytes| ChunkRef {
        hash: Hash::of(content),
        save,
        length: u32::try_from(content.len()).unwrap(),
        form: Form::Plain,
    };
    let record_crc = fold.record_crc();
    let (fold, state) = (encode(fold), Bytes::from_static(state));
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        shard: shard.clone(),
        position,
        record_crc,
        hash: Hash::default(),
        fold: vec![chunk(&fold)],
        replies: Vec::new(),
        state: vec![chunk(&state), chunk(&state)],
        canonical: true,
    };
    for content in [fold, state] {
        store.put(chunk(&content).name(shard), content).await.unwrap();
    }
    let content = encode(&manifest);
    let hash = Hash::of(&content);
    store.put(manifest_name(shard, position, hash), content).await.unwrap();
    (manifest, hash)
}

/// One of `board` that its log keeps.
async fn kept(server: &Server) -> (Manifest, Hash) {
    kept_at(server, &Fold::new()).await
}

async fn kept_at(server: &Server, fold: &Fold) -> (Manifest, Hash) {
    let (manifest, hash) = checkpoint_at(server, &shard(), fold, b"the state of the board").await;
    let writer = Writer { epoch: Epoch(1), replica: replica("a", 1) };
    let (position, record_crc) = (manifest.position, manifest.record_crc);
    let record = Checkpoint { writer, position, manifest: hash, record_crc };
    let link = server.bench.broker.connect("test");
    link.log(&shard().log_name()).await.unwrap().append(vec![Record::Checkpoint(record)]).await.unwrap();
    (manifest, hash)
}

async fn raw(server: &Server, line: (&str, &str), body: Bytes) -> Raw {
    call_raw(&server.shell, &server.address, line, &[], body).await.unwrap()
}

async fn exported(server: &Server) -> Bytes {
    let (head, content) = raw(server, ("GET", EXPORT), Bytes::new()).await;
    assert_eq!(head.status, 200);
    content.expect("it is whole")
}

async fn imported(server: &Server, path: &str, archive: &[u8]) -> (u16, Value) {
    let (head, content) = raw(server, ("POST", path), Bytes::copy_from_slice(archive)).await;
    let content = content.expect("the answer is whole");
    (head.status.as_u16(), serde_json::from_slice(&content).unwrap())
}

async fn lose(broker: &std::sync::Arc<MemoryBroker>, name: String) {
    broker.connect("test").store().delete(name).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_goes_out_as_a_file_and_what_is_lost_comes_back_from_it() {
    let server = Server::start(Manner::Good).await;
    let (manifest, hash) = kept(&server).await;
    let (head, archive) = raw(&server, ("GET", EXPORT), Bytes::new()).await;
    let archive = archive.expect("it is whole");
    let header = |name: &str| head.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/octet-stream");
    assert_eq!(header("content-disposition"), "attachment; filename=\"board-0-0.segue\"");
    assert_eq!(header("content-length"), archive.len().to_string());
    assert!(archive.starts_with(b"segue-checkpoint/1\n"));
    for named in ["0".to_owned(), hash.to_string()] {
        let path = format!("/v1/services/board/checkpoints/{named}/export");
        assert_eq!(raw(&server, ("GET", &path), Bytes::new()).await.1.expect("it is whole"), archive);
    }
    let (status, whole) = imported(&server, IMPORT, &archive).await;
    assert_eq!((status, &whole["action"], &whole["missing"]), (200, &json!("restore"), &json!(0)), "{whole}");
    lose(&server.bench.broker, manifest.state[0].name(&shard())).await;
    let (_, damaged) = imported_text(&server, EXPORT).await;
    assert_eq!((&damaged["code"], &damaged["status"]), (&json!("checkpoint-damaged"), &json!(409)), "{damaged}");
    let (status, looked) = imported(&server, &format!("{IMPORT}?validate_only=true"), &archive).await;
    assert_eq!((status, &looked["missing"], &looked["validate_only"]), (200, &json!(1), &json!(true)), "{looked}");
    assert_eq!(imported_text(&server, EXPORT).await.0, 409, "looking changes nothing");
    let (status, done) = imported(&server, IMPORT, &archive).await;
    assert_eq!((status, &done["missing"], &done["chunks"]), (200, &json!(1), &json!(2)), "{done}");
    assert_eq!(exported(&server).await, archive);
    let again = imported(&server, IMPORT, &archive).await.1;
    assert_eq!(again["missing"], 0, "the same import again changes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_trimmed_log_whose_checkpoints_are_all_lost_is_read_again_with_a_file() {
    let server = Server::start(Manner::Good).await;
    let link = server.bench.broker.connect("test");
    let log = link.log(&shard().log_name()).await.unwrap();
    log.append(vec![Record::Mark(Mark { id: Id128(1), asker: replica("a", 1).incarnation, state: false })])
        .await
        .unwrap();
    kept_at(&server, &server.bench.fold()).await;
    let archive = exported(&server).await;
    log.trim(Position(2)).await.unwrap();
    let store = link.store();
    for name in store.list(String::new()).await.unwrap() {
        store.delete(name).await.unwrap();
    }
    let (status, problem) = imported_text(&server, EXPORT).await;
    assert_eq!((status, &problem["code"]), (503, &json!("log-unreadable")), "{problem}");
    let foreign = of(&server, &shard(), b"another state of a board").await;
    let (status, problem) = imported(&server, IMPORT, &foreign).await;
    assert_eq!((status, &problem["code"]), (409, &json!("foreign-checkpoint")), "{problem}");
    let (status, done) = imported(&server, IMPORT, &archive).await;
    assert_eq!((status, &done["position"], &done["missing"]), (200, &json!(2), &json!(3)), "{done}");
    assert_eq!(exported(&server).await, archive);
}

/// What a GET answers that is no archive.
async fn imported_text(server: &Server, path: &str) -> (u16, Value) {
    let answer = server.call("GET", path, "").await;
    (answer.status, answer.json())
}

#[tokio::test(start_paused = true)]
async fn what_is_no_checkpoint_of_this_log_is_refused_and_nothing_is_put() {
    let server = Server::start(Manner::Good).await;
    kept(&server).await;
    let archive = exported(&server).await;
    let store = server.bench.broker.connect("test").store();
    let before = store.list(String::new()).await.unwrap();
    let middle = archive.len() / 2;
    let mut damaged = archive.to_vec();
    damaged[middle] ^= 1;
    let longer = [&archive[..], b"more"].concat();
    let other = ShardId::whole("other".parse().unwrap());
    let foreign = of(&server, &shard(), b"another state of a board").await;
    let wrong = of(&server, &other, b"a state of something else").await;
    let cases: [(&str, &[u8], u16, &str); 9] = [
        (IMPORT, b"", 422, "bad-archive"),
        (IMPORT, b"{\"service\": \"board\"}", 422, "bad-archive"),
        (IMPORT, &archive[..middle], 422, "archive-cut-off"),
        (IMPORT, &damaged, 422, "archive-damaged"),
        (IMPORT, &longer, 422, "archive-damaged"),
        (IMPORT, &foreign, 409, "foreign-checkpoint"),
        (IMPORT, &wrong, 409, "wrong-service"),
        ("/v1/services/bord/checkpoints/import", &archive, 404, "unknown-service"),
        ("/v1/services/board/checkpoints/import?replace=true", &archive, 400, "bad-query"),
    ];
    for (path, content, status, code) in cases {
        let (found, problem) = imported(&server, path, content).await;
        assert_eq!((found, problem["code"].as_str()), (status, Some(code)), "{problem}");
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.len() > 5), "{problem}");
    }
    let (_, told) = imported(&server, &format!("{IMPORT}?from=other"), &wrong).await;
    assert_eq!(told["code"], "foreign-checkpoint", "a log that has begun takes no state from elsewhere: {told}");
    assert_eq!(store.list(String::new()).await.unwrap(), before);
    for path in ["99", "none", &"0".repeat(64)] {
        let (status, problem) = imported_text(&server, &format!("/v1/services/board/checkpoints/{path}/export")).await;
        assert_eq!((status, &problem["code"]), (404, &json!("unknown-checkpoint")), "{problem}");
    }
}

/// An archive of a checkpoint that no log names; the store is as it was.
async fn of(server: &Server, shard: &ShardId, state: &'static [u8]) -> Vec<u8> {
    use sidecar::checkpoint::archive::Export;
    use sidecar::checkpoint::load::Reader;
    let store = server.bench.broker.connect("test").store();
    let before = store.list(String::new()).await.unwrap();
    let (_, hash) = checkpoint(server, shard, state).await;
    let reader = Reader { store: store.clone(), shell: server.shell.clone() };
    let export = Export::open(reader, shard, Position::ZERO, hash).await.unwrap();
    let (to, mut pieces) = tokio::sync::mpsc::channel(4);
    server.shell.spawn(export.send(to));
    let mut archive = Vec::new();
    while let Some(piece) = pieces.recv().await {
        archive.extend_from_slice(&piece.unwrap());
    }
    for name in store.list(String::new()).await.unwrap() {
        if !before.contains(&name) {
            store.delete(name).await.unwrap();
        }
    }
    archive
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_says_to_hold_more_than_the_migrator_takes_is_refused() {
    let mut server = Server::start(Manner::Good).await;
    kept(&server).await;
    let archive = exported(&server).await;
    server.restart_with(Access { import_limit_bytes: 40, ..Access::default() }).await;
    let (status, problem) = imported(&server, IMPORT, &archive).await;
    assert_eq!((status, &problem["code"]), (413, &json!("archive-too-large")), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("import_limit_mb"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_not_begun_is_begun_on_a_node_that_can_run_it() {
    let mut server = Server::start(Manner::Good).await;
    let fresh = ShardId::whole("fresh".parse().unwrap());
    let free = |runs_replica| ShardStatus {
        shard: fresh.clone(),
        epoch: Epoch(0),
        owner: None,
        tail: Position::ZERO,
        runs_replica,
        replica: ReplicaState::None,
        ..status()
    };
    let archive = of(&server, &fresh, b"a state from before").await;
    for (node, run, runs) in [("c", 4, true), ("d", 5, true), ("e", 6, false)] {
        server.bench.sidecar_of(replica(node, run), vec![free(runs)], Manner::Good);
    }
    server.restart().await;
    let path = "/v1/services/fresh/checkpoints/import";
    let ask = async |query: &str| imported(&server, &format!("{path}{query}"), &archive).await;
    let (status, problem) = ask("?validate_only=true").await;
    assert_eq!((status, &problem["code"]), (422, &json!("node-needed")), "{problem}");
    let (status, problem) = ask("?node=e").await;
    assert_eq!((status, &problem["code"]), (404, &json!("unknown-node")), "{problem}");
    let (status, looked) = ask("?node=d&validate_only=true").await;
    assert_eq!((status, &looked["action"], &looked["node"]), (200, &json!("begin"), &json!("d")), "{looked}");
    let store = server.bench.broker.connect("test").store();
    assert!(store.list("import/".to_owned()).await.unwrap().is_empty(), "looking puts nothing");
    // These sidecars answer commands only.
    let (status, problem) = ask("?node=d").await;
    assert_eq!((status, &problem["code"]), (503, &json!("begin-unanswered")), "{problem}");
    assert_eq!(store.list("import/".to_owned()).await.unwrap().len(), 1, "the node may still come to it");
    let list = server.call("GET", "/v1/services/fresh/checkpoints", "").await.json();
    assert_eq!(list["items"], json!([]), "nobody takes it for a checkpoint of the log");
}

#[tokio::test(start_paused = true)]
async fn only_an_operator_takes_a_state_out_or_in_and_both_are_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let (tokens, audit) = (folder.path().join("tokens"), folder.path().join("audit"));
    std::fs::write(&tokens, "vera viewer vera-has-a-token\notto operator otto-has-a-token\n").unwrap();
    let mut server = Server::start(Manner::Good).await;
    kept(&server).await;
    let archive = exported(&server).await;
    let (tokens, audit_log) = (Tokens::read(&tokens).unwrap(), Audit::open(&audit).unwrap());
    server.restart_with(Access { tokens, audit: audit_log, ..Access::default() }).await;
    for (who, line, status) in [
        ("vera", ("GET", EXPORT), 403),
        ("vera", ("HEAD", EXPORT), 403),
        ("vera", ("POST", IMPORT), 403),
        ("otto", ("GET", EXPORT), 200),
        ("otto", ("POST", IMPORT), 200),
        ("otto", ("POST", "/v1/services/board/checkpoints/import?shard=1"), 404),
    ] {
        let bearer = format!("Bearer {who}-has-a-token");
        let headers = [("authorization", bearer.as_str())];
        let body = if line.0 == "POST" { archive.clone() } else { Bytes::new() };
        let (head, _) = call_raw(&server.shell, &server.address, line, &headers, body).await.unwrap();
        assert_eq!(head.status.as_u16(), status, "{who} {line:?}");
    }
    let lines = std::fs::read_to_string(&audit).unwrap();
    let told: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        told.iter().map(|line| (line["who"].as_str().unwrap(), line["status"].as_u64().unwrap())).collect();
    assert_eq!(told, [("vera", 403), ("vera", 403), ("vera", 403), ("otto", 200), ("otto", 200), ("otto", 404)]);
    assert!(lines.lines().all(|line| line.len() < 500), "no archive stands in it: {lines}");
}
