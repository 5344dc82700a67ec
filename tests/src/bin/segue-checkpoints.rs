//! Measures checkpoints of the delay board with real processes: `segue-checkpoints [--state-mb N] [--seconds N]`.
//!
//! Prints what a checkpoint moves after 5 % of the state changed in one range, and scattered; then, under load, the longest gap
//! between completions while checkpoints are taken beside that in windows of equal length without; and the sidecar's memory.
//! Build first: `cargo build --release -p cli -p segue-tests --bins`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::shell::{Shell, real};
use segue_tests::harness::{Port, Process, call, free_port};
use serde_json::json;

const FLIGHT: &str = "2013,1,1,540,9,850,33,AA,1,N619AA,JFK,MIA,160,1089";
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(4);
const LIMIT: Duration = Duration::from_secs(120);

struct Bench {
    shell: Shell,
    folder: PathBuf,
    program: PathBuf,
    state_mb: u64,
    broker: String,
    admin: Port,
    ingress: Port,
}

impl Bench {
    fn sidecar(&self, checkpoint: &str) -> Process {
        let text = format!(
            "node = \"edge-a\"\nbroker = \"segue://{}\"\nadmin = {:?}\n[[service]]\nname = \"delay-board\"\n\
             listen = {:?}\ncreate = true\nready = \"/ready\"\nstate = {{ kind = \"http\", path = \"/segue/state\" }}\n\
             run = [{:?}, \"delay-board\", \"--listen\", \"{{address}}\", \"--state-mb\", \"{}\"]\n\
             checkpoint = {{ {checkpoint} }}\nstart_timeout_ms = 120000\n",
            self.broker,
            self.admin.address(),
            self.ingress.address(),
            self.program,
            self.state_mb
        );
        self.start("sidecar", &text)
    }

    fn start(&self, command: &str, toml: &str) -> Process {
        let file = self.folder.join(format!("{command}.toml"));
        std::fs::write(&file, toml).expect("the folder can be written");
        let arguments = vec![command.to_owned(), "--config".to_owned(), file.display().to_string()];
        Process::start(&self.folder, command, self.program.clone(), arguments, BTreeMap::new())
    }

    async fn wait_ready(&self) {
        loop {
            let answer = call(&self.shell, &self.admin.address(), ("GET", "/readyz"), "", LIMIT).await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            self.shell.sleep(Duration::from_millis(50)).await;
        }
    }

    async fn metric(&self, name: &str) -> f64 {
        let Ok(answer) = call(&self.shell, &self.admin.address(), ("GET", "/metrics"), "", LIMIT).await else {
            return 0.0;
        };
        let text = answer.text();
        let line = text.lines().find(|line| line.starts_with(&format!("segue_{name}{{")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    async fn post(&self, path: &str, body: String) -> serde_json::Value {
        let answer = call(&self.shell, &self.ingress.address(), ("POST", path), body, LIMIT).await;
        let answer = answer.expect("the ingress answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// What the next checkpoint puts into the store after this change: changed, put.
    async fn change(&self, scattered: bool, seed: u64) -> (f64, f64) {
        let before = (self.metric("checkpoints_total").await, self.metric("checkpoint_stored_bytes_total").await);
        let change = json!({"percent": 5, "seed": seed, "scattered": scattered}).to_string();
        let changed = self.post("/padding", change).await["changed_bytes"].as_f64().expect("a number");
        while self.metric("checkpoints_total").await == before.0 {
            self.shell.sleep(Duration::from_millis(50)).await;
        }
        // Its record, and the cleaning behind it.
        self.shell.sleep(Duration::from_secs(3)).await;
        (changed, self.metric("checkpoint_stored_bytes_total").await - before.1)
    }
}

fn megabytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

fn argument(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let found =
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)?.parse().ok());
    found.unwrap_or(default)
}

#[tokio::main]
async fn main() {
    let (shell, _tasks) = real::process();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = std::env::current_exe().expect("a running program has a file");
    let program = program.parent().unwrap_or(Path::new(".")).join("segue");
    let port = free_port();
    let bench = Bench {
        shell: shell.clone(),
        folder: folder.path().to_owned(),
        program,
        state_mb: argument("--state-mb", 256),
        broker: port.address(),
        admin: free_port(),
        ingress: free_port(),
    };
    let _broker =
        bench.start("broker", &format!("listen = {:?}\npath = {:?}\n", port.address(), folder.path().join("data")));
    let sidecar = bench.sidecar("every_s = 0, every_records = 1, every_mb = 0");
    bench.wait_ready().await;
    println!("state {} MB, first checkpoint {:.1} s", bench.state_mb, bench.metric("checkpoint_seconds_sum").await);
    for seed in 1..=2 {
        let (changed, put) = bench.change(false, seed).await;
        let (all, scattered) = (bench.state_mb as f64, bench.change(true, seed).await.1);
        println!(
            "5 % clustered: {:.1} MB changed, {:.1} MB put: {:.2} x changed; scattered: {:.1} MB put: {:.3} x state",
            megabytes(changed),
            megabytes(put),
            put / changed,
            megabytes(scattered),
            megabytes(scattered) / all
        );
    }
    println!("resident memory of the sidecar: {} MB", sidecar.resident_kib() >> 10);
    drop(sidecar);
    let sidecar = bench.sidecar("every_s = 8, every_records = 0, every_mb = 0");
    bench.wait_ready().await;
    stalls(&bench, &sidecar).await;
}

/// Loads the service, and compares the time with and without a checkpoint.
async fn stalls(bench: &Bench, sidecar: &Process) {
    let done = Arc::new(Mutex::new(Vec::new()));
    // The clients end with this function, before the sidecar does.
    let (clients, _tasks) = bench.shell.part();
    for _ in 0..CLIENTS {
        let (shell, address, done) = (bench.shell.clone(), bench.ingress.address(), done.clone());
        clients.spawn(async move {
            loop {
                let answer = call(&shell, &address, ("POST", "/flights"), FLIGHT, LIMIT).await;
                assert!(answer.is_ok_and(|answer| answer.status == 200), "every flight is taken");
                done.lock().expect("nothing panics under this lock").push(shell.now());
                shell.sleep(PAUSE).await;
            }
        });
    }
    let until = bench.shell.now() + Duration::from_secs(argument("--seconds", 60));
    let mut checkpoints: Vec<(Duration, Duration)> = Vec::new();
    let mut before = (bench.metric("checkpoint_seconds_sum").await, bench.metric("checkpoints_total").await);
    let mut most_kib = 0;
    while bench.shell.now() < until {
        bench.shell.sleep(Duration::from_millis(20)).await;
        most_kib = most_kib.max(sidecar.resident_kib());
        let present = (bench.metric("checkpoint_seconds_sum").await, bench.metric("checkpoints_total").await);
        if present.1 > before.1 {
            let (end, took) = (bench.shell.now(), Duration::from_secs_f64((present.0 - before.0).max(0.001)));
            checkpoints.push((end.saturating_sub(took + Duration::from_millis(100)), end));
            before = present;
        }
    }
    let done = done.lock().expect("nothing panics under this lock").clone();
    println!(
        "{} flights, {} checkpoints; resident memory at most {} MB",
        done.len(),
        checkpoints.len(),
        most_kib >> 10
    );
    for (begin, end) in checkpoints {
        let length = end - begin;
        let quiet = begin.saturating_sub(length + Duration::from_millis(500));
        println!(
            "checkpoint of {:.2} s: longest gap {:.1} ms; quiet window before it: {:.1} ms",
            length.as_secs_f64(),
            longest_gap(&done, begin, end),
            longest_gap(&done, quiet, quiet + length)
        );
    }
}

fn longest_gap(done: &[Duration], begin: Duration, end: Duration) -> f64 {
    let inside = done.windows(2).filter(|pair| pair[0] >= begin && pair[1] <= end);
    inside.map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1_000.0).fold(0.0, f64::max)
}
