//! `checkpoints = "s3://…"` against a server of that protocol: moto's, started here, or the one at `SEGUE_TEST_S3_URL`.
//!
//! `tests/run` installs moto; by hand: `pip install moto flask flask-cors py-partiql-parser`, and put that python3 first on `PATH`. It
//! checks no signatures and keeps its objects in memory, so a restart here is one of the client.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_adapter::conformance::{self, Fixture, Restart};
use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::shell::{Shell, real};
use broker_adapter::store::{CheckpointStore, StoreError};
use broker_adapter::stores::CheckpointsAt;
use broker_adapter::stores::s3::BucketStore;
use broker_adapter::{Broker, ConnectError};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BUCKET: &str = "segue-test";
const START_LIMIT: Duration = Duration::from_secs(60);

/// A server, and the variables that lead to it.
struct Server {
    child: Option<Child>,
    endpoint: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }
}

impl Server {
    async fn start(shell: &Shell) -> Server {
        if let Ok(endpoint) = std::env::var("SEGUE_TEST_S3_URL") {
            return Server { child: None, endpoint };
        }
        let address = free_address(shell).await;
        let port = address.rsplit_once(':').unwrap().1;
        let child = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is on PATH");
        let mut server = Server { child: Some(child), endpoint: format!("http://{address}") };
        let until = shell.now() + START_LIMIT;
        // Making the bucket again changes nothing.
        while !request(shell, &address, &format!("PUT /{BUCKET}")).await.is_ok_and(|answer| answer.contains(" 200 ")) {
            let ended = server.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none() && shell.now() < until, "moto does not start (see this file's header): {ended:?}");
            shell.sleep(Duration::from_millis(100)).await;
        }
        server
    }

    fn variables(&self) -> Vec<(String, String)> {
        let given = |key: &str, otherwise: &str| (key.to_owned(), std::env::var(key).unwrap_or(otherwise.to_owned()));
        let endpoint = ("AWS_ENDPOINT_URL".to_owned(), self.endpoint.clone());
        vec![
            endpoint,
            given("AWS_ACCESS_KEY_ID", "a-key"),
            given("AWS_SECRET_ACCESS_KEY", "hidden"),
            given("AWS_REGION", "us-east-1"),
        ]
    }

    async fn store(&self, prefix: &str) -> BucketStore {
        BucketStore::connect(BUCKET, prefix, self.variables()).await.expect("the bucket is there")
    }
}

/// Below the ports that outgoing connections get.
async fn free_address(shell: &Shell) -> String {
    loop {
        let address = format!("127.0.0.1:{}", 20_000 + shell.random().0 % 12_000);
        if shell.listen(&address).await.is_ok() {
            return address;
        }
    }
}

async fn request(shell: &Shell, address: &str, line: &str) -> std::io::Result<String> {
    let mut connection = shell.connect(address).await?;
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=a-key/20260101/us-east-1/s3/aws4_request\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A broker of which the suite uses the store alone.
struct StoreAlone {
    broker: Arc<dyn Broker>,
    store: BucketStore,
}

impl Broker for StoreAlone {
    fn log(&self, name: &str) -> BoxFuture<'static, Result<Arc<dyn broker_adapter::log::MessageLog>, ConnectError>> {
        self.broker.log(name)
    }

    fn store(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.store.clone())
    }

    fn mailbox(&self) -> Arc<dyn broker_adapter::mailbox::Mailbox> {
        self.broker.mailbox()
    }

    fn url(&self) -> String {
        self.broker.url()
    }
}

async fn broker(server: &Server, prefix: &str, shell: &Shell) -> Arc<dyn Broker> {
    let broker = MemoryBroker::new(1, shell.clone(), Faults::calm()).connect("a");
    Arc::new(StoreAlone { broker, store: server.store(prefix).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_keeps_the_contract_of_a_checkpoint_store() {
    let (shell, _process) = real::process();
    let server = Arc::new(Server::start(&shell).await);
    let (made, run) = (AtomicU64::new(0), shell.random());
    conformance::run_store(|| async {
        let prefix = format!("{run}/{}", made.fetch_add(1, Ordering::SeqCst));
        let broker = broker(&server, &prefix, &shell).await;
        let (server, world) = (server.clone(), shell.clone());
        let restart: Restart = Arc::new(move |old| {
            drop(old);
            let (server, prefix, shell) = (server.clone(), prefix.clone(), world.clone());
            async move { self::broker(&server, &prefix, &shell).await }.boxed()
        });
        Fixture { broker, shell: shell.clone(), restart: Some(restart), keep: Box::new(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_does_not_exist_is_refused_with_advice() {
    let (shell, _process) = real::process();
    let server = Server::start(&shell).await;
    let said = BucketStore::connect("no-such-bucket", "", server.variables()).await.err().expect("no such bucket");
    assert!(said.contains("NoSuchBucket") && said.contains("make the bucket first"), "{said}");
    assert!(!said.contains("hidden"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_unreachable_in_bounded_time() {
    let (shell, _process) = real::process();
    let mut server = Server::start(&shell).await;
    let Some(mut child) = server.child.take() else { return };
    let store = server.store("gone").await;
    store.put("chunk/a".to_owned(), Bytes::from_static(b"a")).await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let put = shell.within(START_LIMIT, store.put("chunk/b".to_owned(), Bytes::from_static(b"b"))).await;
    assert!(matches!(&put, Some(Err(StoreError::Unreachable(why))) if !why.contains("hidden")), "{put:?}");
    let get = shell.within(START_LIMIT, store.get("chunk/a".to_owned())).await;
    assert!(matches!(get, Some(Err(StoreError::Unreachable(_)))), "{get:?}");
}

#[test]
fn a_bucket_is_read_from_a_configuration() {
    let place: CheckpointsAt = format!("s3://{BUCKET}/a/b").parse().unwrap();
    assert_eq!(place, CheckpointsAt::Bucket { bucket: BUCKET.to_owned(), prefix: "a/b".to_owned() });
}
