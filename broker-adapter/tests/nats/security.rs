//! Who may come in and what is encrypted, on real servers: NKEYs, credentials files, TLS, and which servers a URL and a placement name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use broker_adapter::nats::NatsOptions;
use broker_adapter::nats::options::{Placement, Tls};
use broker_adapter::shell::{Shell, real};
use broker_adapter::{Broker, BrokerOptions, ConnectError, connect_with};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, IsCa};
use serde_json::{Value, json};

use super::server::{Server, Setup, free_port};
use crate::support::{at, mark};

async fn connected(url: &str, nats: &NatsOptions, shell: &Shell) -> Result<Arc<dyn Broker>, ConnectError> {
    let broker = connect_with(url, &BrokerOptions { nats: nats.clone(), ..BrokerOptions::default() }, shell).await?;
    let log = broker.log("a.0").await?;
    assert_eq!(log.append(vec![mark(1)]).await, Ok(vec![at(1)]));
    Ok(broker)
}

async fn refused(url: &str, nats: &NatsOptions, shell: &Shell) -> String {
    connected(url, nats, shell).await.err().expect("it is refused").to_string()
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("it can be written");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nkey_opens_the_door_and_another_one_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (known, other) = (KeyPair::new_user(), KeyPair::new_user());
    let lines = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", known.public_key());
    let server = Server::start_with(&folder.path().join("server"), Setup { lines, ..Setup::default() });
    let (shell, _process) = real::process();
    let with = |name: &str, key: &KeyPair| {
        let seed = format!("{}\n", key.seed().expect("it has one"));
        NatsOptions { nkey: Some(written(folder.path(), name, &seed)), ..NatsOptions::default() }
    };
    connected(&server.url(), &with("known.nk", &known), &shell).await.expect("it connects");
    let text = refused(&server.url(), &with("other.nk", &other), &shell).await;
    assert!(text.contains("nkey in [nats]") && !text.contains(&other.seed().expect("a seed")), "{text}");
    let missing = NatsOptions { nkey: Some(folder.path().join("missing.nk")), ..NatsOptions::default() };
    assert!(refused(&server.url(), &missing, &shell).await.contains("missing.nk"));
}

/// A JSON web token as NATS has it: claims about `subject`, signed by `issuer`.
fn token(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "jti": format!("{name}-1"), "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name,
        "sub": subject.public_key(), "nats": nats,
    });
    let signed = format!("{}.{}", encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).expect("it signs");
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn account(streams: i64) -> Value {
    json!({
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": streams, "disk_storage": streams, "streams": streams, "consumer": streams,
        },
        "default_permissions": {"pub": {}, "sub": {}}, "type": "account", "version": 2,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_file_of_an_operators_account_opens_the_door() {
    let folder = tempfile::tempdir().expect("a folder");
    let (operator, system, ours) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let (user, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let lines = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n {}: {}\n {}: {}\n}}",
        token(&operator, &operator, "operator", &json!({"type": "operator", "version": 2})),
        system.public_key(),
        system.public_key(),
        token(&operator, &system, "SYS", &account(0)),
        ours.public_key(),
        token(&operator, &ours, "segue", &account(-1)),
    );
    let server = Server::start_with(&folder.path().join("server"), Setup { lines, ..Setup::default() });
    let (shell, _process) = real::process();
    let with = |name: &str, key: &KeyPair, signer: &KeyPair| {
        let claims = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2});
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            token(signer, key, name, &claims),
            key.seed().expect("it has one"),
        );
        NatsOptions { credentials: Some(written(folder.path(), name, &text)), ..NatsOptions::default() }
    };
    connected(&server.url(), &with("known.creds", &user, &ours), &shell).await.expect("it connects");
    // Signed by an account that the operator does not know.
    let text = refused(&server.url(), &with("stranger.creds", &stranger, &KeyPair::new_account()), &shell).await;
    assert!(text.contains("credentials") && !text.contains(&stranger.seed().expect("a seed")), "{text}");
    let broken = NatsOptions {
        credentials: Some(written(folder.path(), "broken.creds", "nothing of that kind")),
        ..NatsOptions::default()
    };
    assert!(refused(&server.url(), &broken, &shell).await.contains("broken.creds"));
}

/// Who signs, as PEM, and files of a certificate and a key for each name.
struct Authority {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
    ca: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Authority {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are no bad names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("it signs itself");
        let ca = written(folder, &format!("{name}.pem"), &certificate.pem());
        Authority { certificate, key, ca }
    }

    fn signs(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("good names");
        let certificate = params.signed_by(&key, &self.certificate, &self.key).expect("it signs");
        (
            written(folder, &format!("{name}.pem"), &certificate.pem()),
            written(folder, &format!("{name}.key"), &key.serialize_pem()),
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_needs_the_right_authority_and_the_clients_certificate_where_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, other) = (Authority::new(folder.path(), "ca"), Authority::new(folder.path(), "other-ca"));
    let (certificate, key) = ours.signs(folder.path(), "server");
    let lines = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {:?}, verify: true, timeout: 5 }}",
        ours.ca
    );
    let server = Server::start_with(&folder.path().join("server"), Setup { lines, ..Setup::default() });
    let (shell, _process) = real::process();
    let (certificate, key) = ours.signs(folder.path(), "client");
    let tls = Tls { required: true, ca: Some(ours.ca), certificate: Some(certificate), key: Some(key), first: false };
    let with = |tls: &Tls| NatsOptions { tls: tls.clone(), ..NatsOptions::default() };
    connected(&server.url(), &with(&tls), &shell).await.expect("it connects");
    // `tls://` demands it too.
    let by_scheme = server.url().replace("nats://", "tls://");
    let unrequired = Tls { required: false, ..tls.clone() };
    let options = BrokerOptions { nats: with(&unrequired), ..BrokerOptions::default() };
    let broker = connect_with(&by_scheme, &options, &shell).await.expect("it connects");
    assert_eq!(broker.log("a.0").await.expect("it opens").tail().await, Ok(at(1)));
    let wrong = Tls { ca: Some(other.ca), ..tls.clone() };
    let text = refused(&server.url(), &with(&wrong), &shell).await;
    assert!(text.to_lowercase().contains("tls") || text.contains("certificate"), "{text}");
    let anonymous = Tls { certificate: None, key: None, ..tls };
    refused(&server.url(), &with(&anonymous), &shell).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_servers_in_the_url_one_that_lives_is_enough() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let dead = free_port();
    let (shell, _process) = real::process();
    let url = format!("nats://127.0.0.1:{},127.0.0.1:{}", dead.number, server.port.number);
    let broker = connected(&url, &NatsOptions::default(), &shell).await.expect("it connects");
    assert_eq!(broker.url(), url);
}

/// Three servers of which one has a tag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_placed_where_its_tags_are_and_refused_where_nobody_has_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
    let all: Vec<u16> = ports.iter().map(|port| port.number).collect();
    let start = |own: u16| {
        let lines = if own == all[1] { "server_tags: [\"disk:fast\"]" } else { "server_tags: [\"disk:slow\"]" };
        let cluster = Some(("segue".to_owned(), own, all.clone()));
        let setup = Setup { lines: lines.to_owned(), cluster, ..Setup::default() };
        Server::start_with(&folder.path().join(own.to_string()), setup)
    };
    let servers: Vec<Server> = all.iter().map(|own| start(*own)).collect();
    let (shell, _process) = real::process();
    let placed = |tag: &str| NatsOptions {
        placement: Placement { cluster: None, tags: vec![tag.to_owned()] },
        ..NatsOptions::default()
    };
    let url = servers[0].url();
    loop {
        // They choose a leader among themselves first.
        match connected(&url, &placed("disk:fast"), &shell).await {
            Ok(_) => break,
            Err(error) => assert!(!error.to_string().contains("tags"), "{error}"),
        }
    }
    let admin = async_nats::connect(&url).await.expect("it connects");
    let info = super::settings::api(&admin, "STREAM.INFO.SEGUE_a_2E0", Value::Null).await;
    assert_eq!(info["cluster"]["leader"], json!(format!("n{}", servers[1].port.number)), "{info}");
    let text = refused(&format!("{url}/elsewhere"), &placed("disk:none"), &shell).await;
    assert!(text.contains("tags"), "{text}");
}
