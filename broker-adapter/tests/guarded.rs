//! Who comes in to `segue://` and `segues://`, over real sockets: tokens and their rotation, TLS, and who speaks the wrong one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::embedded::door::{Door, DoorOptions};
use broker_adapter::embedded::options::SegueOptions;
use broker_adapter::embedded::token::REREAD_AFTER;
use broker_adapter::embedded::{EmbeddedBroker, server};
use broker_adapter::shell::{Shell, TaskSet, real};
use broker_adapter::tls::TlsFiles;
use broker_adapter::{Broker, BrokerOptions, ConnectError, connect_with};
use rcgen::{BasicConstraints, CertificateParams, IsCa};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::support::{at, mark, open};

const TOKEN: &str = "hunter2-hunter2-hunter2";
const NEXT: &str = "hunter3-hunter3-hunter3";

/// Files of one broker and its clients.
#[derive(Clone)]
pub struct Guards {
    pub folder: PathBuf,
    pub files: TlsFiles,
    pub ca: PathBuf,
    /// The server's tokens.
    pub tokens: PathBuf,
    /// A client's token.
    pub token: PathBuf,
}

impl Guards {
    pub fn new(folder: &Path) -> Guards {
        let authority = rcgen::KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are no bad names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&authority).expect("it signs itself");
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a good name");
        let certificate = params.signed_by(&key, &root, &authority).expect("it signs");
        let write = |name: &str, text: &str| written(folder, name, text);
        Guards {
            folder: folder.to_owned(),
            files: TlsFiles {
                certificate: write("server.pem", &certificate.pem()),
                key: write("server.key", &key.serialize_pem()),
            },
            ca: write("ca.pem", &root.pem()),
            tokens: write("tokens", &format!("{TOKEN}\n")),
            token: write("token", &format!("{TOKEN}\n")),
        }
    }

    fn door_options(&self) -> DoorOptions {
        DoorOptions {
            listen: "127.0.0.1:0".to_owned(),
            token_file: Some(self.tokens.clone()),
            tls: Some(self.files.clone()),
            ..DoorOptions::default()
        }
    }

    pub fn door(&self, shell: &Shell) -> Door {
        Door::new(&self.door_options(), shell).expect("good files")
    }

    pub fn options(&self) -> BrokerOptions {
        let segue = SegueOptions { token_file: Some(self.token.clone()), ca: Some(self.ca.clone()) };
        BrokerOptions { segue, ..BrokerOptions::default() }
    }
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("it can be written");
    path
}

/// A broker that serves behind a door.
struct Served {
    shell: Shell,
    broker: EmbeddedBroker,
    address: String,
    guards: Guards,
    _tasks: TaskSet,
    _folder: TempDir,
}

impl Served {
    async fn behind(options: impl FnOnce(DoorOptions) -> DoorOptions) -> Served {
        let (shell, tasks) = real::process();
        let folder = tempfile::tempdir().expect("a folder");
        let guards = Guards::new(folder.path());
        let door = Door::new(&options(guards.door_options()), &shell).expect("good files");
        let broker = open(&folder.path().join("broker"), &shell).await;
        let listener = shell.listen("127.0.0.1:0").await.expect("it listens");
        let address = listener.address();
        shell.spawn(server::serve_behind(door, broker.clone(), listener, shell.clone()));
        Served { shell, broker, address, guards, _tasks: tasks, _folder: folder }
    }

    /// With a token, without TLS.
    async fn plain() -> Served {
        Served::behind(|options| DoorOptions { tls: None, ..options }).await
    }

    async fn connect(&self, scheme: &str, segue: SegueOptions) -> Result<Arc<dyn Broker>, ConnectError> {
        let options = BrokerOptions { segue, ..BrokerOptions::default() };
        connect_with(&format!("{scheme}://{}", self.address), &options, &self.shell).await
    }

    /// Why it does not let somebody in; at once, for nobody is asked twice who says no.
    async fn refuses(&self, scheme: &str, segue: SegueOptions) -> String {
        let began = self.shell.now();
        let text = self.connect(scheme, segue).await.err().expect("it is refused").to_string();
        assert!(self.shell.now() - began < Duration::from_secs(4), "it was tried again and again: {text}");
        assert!(!text.contains("hunter"), "{text}");
        text
    }

    fn counted(&self, name: &str) -> f64 {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.broker.measured()).expect("it is text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }
}

fn token(path: &Path) -> SegueOptions {
    SegueOptions { token_file: Some(path.to_owned()), ca: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_token_comes_in_and_a_wrong_or_missing_one_is_told_what_to_do() {
    let served = Served::plain().await;
    let broker = served.connect("segue", token(&served.guards.token)).await.expect("it connects");
    let log = broker.log("a.0").await.expect("it opens");
    assert_eq!(log.append(vec![mark(1)]).await, Ok(vec![at(1)]));
    assert_eq!(served.counted("segue_broker_authentication_failures_total"), 0.0);
    let missing = served.refuses("segue", SegueOptions::default()).await;
    assert!(missing.contains("none was sent: set [segue] token_file"), "{missing}");
    let other = written(&served.guards.folder, "other", NEXT);
    let wrong = served.refuses("segue", token(&other)).await;
    assert!(wrong.contains("does not know this token"), "{wrong}");
    assert_eq!(served.counted("segue_broker_authentication_failures_total"), 2.0);
    assert_eq!(served.counted("segue_broker_connections_refused_total"), 2.0);
    let absent = served.refuses("segue", token(Path::new("no-such-file"))).await;
    assert!(absent.contains("no-such-file ([segue] token_file) cannot be read"), "{absent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_changed_while_everybody_runs() {
    let served = Served::plain().await;
    let (tokens, own) = (&served.guards.tokens, &served.guards.token);
    let broker = served.connect("segue", token(own)).await.expect("it connects");
    let early = broker.log("a.0").await.expect("it opens");
    std::fs::write(tokens, format!("{TOKEN}\n{NEXT}\n")).expect("written");
    served.shell.sleep(REREAD_AFTER).await;
    std::fs::write(own, format!("{NEXT}\n")).expect("written");
    served.shell.sleep(REREAD_AFTER).await;
    std::fs::write(tokens, format!("{NEXT}\n")).expect("written");
    served.shell.sleep(REREAD_AFTER).await;
    // A new connection with the new one; the old connection goes on.
    broker.log("b.0").await.expect("it opens").append(vec![mark(1)]).await.expect("it appends");
    early.append(vec![mark(1)]).await.expect("it appends");
    let old = written(&served.guards.folder, "old", TOKEN);
    assert!(served.refuses("segue", token(&old)).await.contains("does not know this token"));
    assert_eq!(served.counted("segue_broker_authentication_failures_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_needs_the_right_authority_and_the_right_name() {
    let served = Served::behind(|options| options).await;
    let good = served.guards.options().segue;
    let broker = served.connect("segues", good.clone()).await.expect("it connects");
    assert_eq!(broker.url(), format!("segues://{}", served.address));
    let log = broker.log("a.0").await.expect("it opens");
    assert_eq!(log.append(vec![mark(1)]).await, Ok(vec![at(1)]));
    let without_token = served.refuses("segues", SegueOptions { token_file: None, ..good.clone() }).await;
    assert!(without_token.contains("none was sent"), "{without_token}");
    let other = tempfile::tempdir().expect("a folder");
    let stranger = Guards::new(other.path());
    let wrong = served.refuses("segues", SegueOptions { ca: Some(stranger.ca), ..good.clone() }).await;
    assert!(wrong.contains("certificate is not believed") && wrong.contains("[segue] ca"), "{wrong}");
    // The certificate is for 127.0.0.1.
    let options = BrokerOptions { segue: good, ..BrokerOptions::default() };
    let by_name = format!("segues://{}", served.address.replace("127.0.0.1", "localhost"));
    let misnamed = connect_with(&by_name, &options, &served.shell).await.err().expect("it is refused").to_string();
    assert!(misnamed.contains("certificate is not believed"), "{misnamed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_plain_to_tls_or_tls_to_plain_is_told_so() {
    let encrypted = Served::behind(|options| options).await;
    let text = encrypted.refuses("segue", token(&encrypted.guards.token)).await;
    assert!(text.contains(&format!("it speaks TLS: write segues://{}", encrypted.address)), "{text}");
    let plain = Served::plain().await;
    let text = plain.refuses("segues", plain.guards.options().segue).await;
    assert!(text.contains("does not speak TLS") && text.contains(&format!("segue://{}", plain.address)), "{text}");
    // Before anything is sent: who names an authority means TLS.
    let text = plain.refuses("segue", plain.guards.options().segue).await;
    assert!(text.contains("[segue]") && text.contains(&format!("segues://{}", plain.address)), "{text}");
    for served in [&encrypted, &plain] {
        assert_eq!(served.counted("segue_broker_connections_refused_total"), 1.0);
        assert_eq!(served.counted("segue_broker_authentication_failures_total"), 0.0);
    }
}

/// What is read of a stranger is short, and not for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_can_neither_announce_a_large_frame_nor_stay_silent() {
    let served = Served::plain().await;
    let mut large = served.shell.connect(&served.address).await.expect("it connects");
    tokio::io::AsyncWriteExt::write_all(&mut large, &(1u32 << 20).to_be_bytes()).await.expect("it is sent");
    let mut silent = served.shell.connect(&served.address).await.expect("it connects");
    for stranger in [&mut large, &mut silent] {
        let ended = served.shell.within(Duration::from_secs(60), stranger.read(&mut [0; 16])).await;
        assert!(matches!(ended, Some(Ok(0) | Err(_))), "{ended:?}");
    }
    while served.counted("segue_broker_connections") > 0.0 {
        served.shell.sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(served.counted("segue_broker_connections_refused_total"), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_counts_what_it_does() {
    let served = Served::plain().await;
    let broker = served.connect("segue", token(&served.guards.token)).await.expect("it connects");
    let log = broker.log("a.0").await.expect("it opens");
    log.append(vec![mark(1), mark(2)]).await.expect("it appends");
    log.append(vec![mark(3)]).await.expect("it appends");
    let mut reading = log.read(at(1));
    futures_util::StreamExt::next(&mut reading).await.expect("it reads").expect("a record");
    for (name, value) in
        [("appends_total", 2.0), ("appended_records_total", 3.0), ("readers", 1.0), ("logs", 1.0), ("trouble", 0.0)]
    {
        assert_eq!(served.counted(&format!("segue_broker_{name}")), value, "{name}");
    }
    assert!(served.counted("segue_broker_connections") >= 3.0, "store, appends, reads");
    assert!(served.counted("segue_broker_disk_bytes") > 0.0 && served.counted("segue_broker_disk_free_bytes") > 0.0);
    assert_eq!(served.counted("segue_broker_append_seconds_count"), 2.0);
    assert!(served.counted("segue_broker_append_seconds_sum") >= served.counted("segue_broker_commit_seconds_sum"));
}
