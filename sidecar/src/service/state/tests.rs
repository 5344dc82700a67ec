//! States of programs and folders, saved from one instance and loaded into another.

use broker_adapter::shell::{Shell, TaskSet, real};

use super::*;
use crate::runner::{AttachRunner, DataParent, ProcessRunner, Runner};

/// A service that answers with the content of the file in its folder.
const SERVICE: &str = r#"
import http.server, os, sys
data, (host, port) = os.environ["SEGUE_DATA"], sys.argv[1].rsplit(":", 1)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        try: body = open(data + "/state", "rb").read()
        except FileNotFoundError: body = b"nothing"
        if self.path == "/ready": body = b"yes"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"#;

struct Stage {
    shell: Shell,
    folder: tempfile::TempDir,
    _tasks: TaskSet,
}

impl Stage {
    fn new() -> Stage {
        let (shell, tasks) = real::process();
        Stage { shell, folder: tempfile::tempdir().unwrap(), _tasks: tasks }
    }

    fn runner(&self) -> ProcessRunner {
        let data = DataParent { folder: self.folder.path().join("data"), prefix: "segue-a-s".to_owned() };
        let command = ["python3", "-c", SERVICE, "{address}"].map(str::to_owned).to_vec();
        ProcessRunner::new(Vec::new(), command, data, self.shell.clone())
    }

    async fn load(&self, runner: &dyn Runner, config: &ServiceConfig, state: &[u8], length: usize) -> Loaded {
        let (sender, body) = load_channel(length as u64);
        let pieces: Vec<Bytes> = state.chunks(1_000).map(Bytes::copy_from_slice).collect();
        let send = async move {
            for piece in pieces {
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        };
        futures_util::future::join(load(runner, config, body, &self.shell, &self.shell), send).await.0
    }
}

type Loaded = Result<Running, ServiceError>;

fn config(state: &str) -> ServiceConfig {
    let text =
        format!(r#"{{ "name": "s", "listen": "x", "ready": "/ready", "start_timeout_ms": 5000, "state": {state} }}"#);
    serde_json::from_str(&text).unwrap()
}

fn command(save: &str, load: &str, then: &str) -> ServiceConfig {
    let program = |script: &str| serde_json::to_string(&["sh", "-c", script]).unwrap();
    config(&format!(
        r#"{{ "kind": "command", "save": {}, "load": {}, "then": "{then}" }}"#,
        program(save),
        program(load)
    ))
}

async fn whole(mut state: SavedState) -> Result<Vec<u8>, ServiceError> {
    let mut all = Vec::new();
    while let Some(piece) = state.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

async fn answer(running: &mut Running) -> Bytes {
    let limits = super::super::Limits { time: std::time::Duration::from_secs(5), reply_bytes: 1 << 20 };
    running.connection.deliver(&super::super::plain_get("/"), &[], limits).await.unwrap().body
}

#[tokio::test]
async fn a_folder_goes_from_one_instance_to_another_which_starts_with_it() {
    let stage = Stage::new();
    let config = config(r#"{ "kind": "directory" }"#);
    let (one, other) = (stage.runner(), stage.runner());
    let mut first = begin_empty(&one, &config, &stage.shell).await.unwrap();
    let data = first.instance.place().data.unwrap();
    std::fs::write(data.join("state"), "the state").unwrap();
    let saved = first.save(&config, &stage.shell).await.unwrap();
    assert!(saved.canonical && !saved.fixed);
    let saved = whole(saved).await.unwrap();
    let mut second = stage.load(&other, &config, &saved, saved.len()).await.unwrap();
    assert_eq!(answer(&mut second).await, "the state");
    first.instance.stop().await;
    assert!(!data.exists(), "the folder goes with its instance");
}

#[tokio::test]
async fn programs_write_and_read_a_state() {
    let stage = Stage::new();
    let state = vec![b'x'; 300_000];
    for then in ["restart", "nothing"] {
        let config = command("cat {data}/state", "cat > {data}/state", then);
        let runner = stage.runner();
        let mut running = stage.load(&runner, &config, &state, state.len()).await.unwrap();
        assert_eq!(answer(&mut running).await, state);
        let saved = running.save(&config, &stage.shell).await.unwrap();
        assert_eq!(whole(saved).await.unwrap(), state);
        // A dropped instance ends, and its folder with it.
        drop(running);
        let _next = runner.prepare().await.unwrap();
        assert_eq!(std::fs::read_dir(stage.folder.path().join("data")).unwrap().count(), 2);
    }
}

#[tokio::test]
async fn a_program_that_fails_is_told_with_the_end_of_what_it_wrote() {
    let stage = Stage::new();
    let config = command("echo part; echo no disk >&2; exit 3", "cat >/dev/null; echo no room >&2; exit 4", "restart");
    let runner = stage.runner();
    let mut running = begin_empty(&runner, &config, &stage.shell).await.unwrap();
    let saved = running.save(&config, &stage.shell).await.unwrap();
    let said = whole(saved).await.unwrap_err().to_string();
    assert!(said.contains("status 3: no disk") && said.contains("echo part"), "{said}");
    let said = stage.load(&runner, &config, b"state", 5).await.err().unwrap().to_string();
    assert!(said.contains("status 4: no room"), "{said}");
}

#[tokio::test]
async fn a_program_never_sees_the_end_of_a_state_that_ends_early() {
    let stage = Stage::new();
    let config = command("true", "cat >/dev/null; touch {data}/../whole", "restart");
    let runner = stage.runner();
    let said = stage.load(&runner, &config, b"half", 8).await.err().unwrap().to_string();
    assert!(said.contains(EARLY_END), "{said}");
    assert!(!stage.folder.path().join("data/whole").exists());
    stage.load(&runner, &config, b"complete", 8).await.unwrap();
    assert!(stage.folder.path().join("data/whole").exists());
}

#[tokio::test]
async fn a_folder_is_saved_after_its_service_was_told_and_not_if_that_fails() {
    let stage = Stage::new();
    let with = |script: &str| {
        config(&format!(
            r#"{{ "kind": "directory", "path": "{{data}}", "before_save": ["sh", "-c", "{script}"], "canonical": false }}"#
        ))
    };
    let runner = stage.runner();
    let good = with("echo told > {data}/state");
    let mut running = begin_empty(&runner, &good, &stage.shell).await.unwrap();
    let saved = running.save(&good, &stage.shell).await.unwrap();
    assert!(!saved.canonical);
    assert!(String::from_utf8_lossy(&whole(saved).await.unwrap()).contains("told"));
    let refused = running.save(&with("exit 1"), &stage.shell).await.err().unwrap();
    assert!(refused.to_string().contains("status 1"), "{refused}");
}

/// Listens at a Unix socket and keeps its state in memory.
const ATTACHED: &str = r#"
import http.server, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, state = sys.argv[2], b""
    def answer(self, body):
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_GET(self): self.answer(b"yes" if self.path == "/ready" else Handler.state)
    def do_PUT(self):
        Handler.state = self.rfile.read(int(self.headers["Content-Length"])); self.answer(b"")
    def log_message(self, *_): pass
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads = True
Server(sys.argv[1], Handler).serve_forever()
"#;

#[tokio::test]
async fn a_service_at_a_unix_socket_is_loaded_saved_and_left_alone() {
    let stage = Stage::new();
    let config = config(r#"{ "kind": "http", "path": "/state" }"#);
    let start = |socket: &std::path::Path, version: &str| {
        let mut command = tokio::process::Command::new("python3");
        command.args(["-c", ATTACHED, &socket.display().to_string(), version]).kill_on_drop(true).spawn().unwrap()
    };
    let socket = stage.folder.path().join("good");
    let mut service = start(&socket, "HTTP/1.1");
    let runner = AttachRunner::new(Vec::new(), &format!("unix:{}", socket.display()));
    let mut running = stage.load(&runner, &config, b"the state", 9).await.unwrap();
    assert_eq!(answer(&mut running).await, "the state");
    let saved = running.save(&config, &stage.shell).await.unwrap();
    assert_eq!(whole(saved).await.unwrap(), b"the state");
    running.instance.stop().await;
    drop(running);
    assert!(matches!(service.try_wait(), Ok(None)), "it is somebody else's");
}

#[tokio::test]
async fn an_attached_service_that_can_never_be_known_is_refused_with_what_to_do() {
    let stage = Stage::new();
    let config = config(r#"{ "kind": "http", "path": "/state" }"#);
    let socket = stage.folder.path().join("closing");
    let mut command = tokio::process::Command::new("python3");
    let _service =
        command.args(["-c", ATTACHED, &socket.display().to_string(), "HTTP/1.0"]).kill_on_drop(true).spawn().unwrap();
    let runner = AttachRunner::new(Vec::new(), &format!("unix:{}", socket.display()));
    let said = stage.load(&runner, &config, b"the state", 9).await.err().unwrap().to_string();
    assert!(said.contains("keep idle connections open, or echo Segue-Instance"), "{said}");
}

/// Found by `tests/soak --processes`: a target's service that was killed before it listened held its node up for the whole
/// `start_timeout_ms`.
#[tokio::test]
async fn a_service_that_ends_before_it_is_ready_is_told_at_once() {
    let stage = Stage::new();
    let data = DataParent { folder: stage.folder.path().join("data"), prefix: "segue-a-s".to_owned() };
    let command = ["python3", "-c", "raise SystemExit(3)", "{address}"].map(str::to_owned).to_vec();
    let runner = ProcessRunner::new(Vec::new(), command, data, stage.shell.clone());
    let config = ServiceConfig { start_timeout_ms: 60_000, ..config(r#"{ "kind": "http", "path": "/segue/state" }"#) };
    let began = stage.shell.now();
    let error = stage.load(&runner, &config, b"state", 5).await.err().expect("nobody listens");
    assert!(stage.shell.now() - began < std::time::Duration::from_secs(20), "it waited for the dead");
    assert!(error.to_string().contains("ended before it was ready"), "{error}");
}
