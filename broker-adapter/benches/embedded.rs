//! Durable appends of 256-byte records, as ratios to a bare write + fdatasync in the same run on the same disk.
//!
//! `cargo bench -p broker-adapter`. In process and through `segue://` on loopback; goals: at least 30,000 durable appends/s with
//! 256 in flight, serial append p50 at most 3 × the bare one, both in process.
#![allow(clippy::disallowed_methods)] // measures real time on a real disk

mod turns;

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_adapter::broker::Broker;
use broker_adapter::connect;
use broker_adapter::embedded::{EmbeddedBroker, Options, server};
use broker_adapter::log::MessageLog;
use broker_adapter::record::wire;
use broker_adapter::shell::real;

const RECORD_BYTES: usize = 256;
const IN_FLIGHT: usize = 256;
const SERIAL_APPENDS: usize = 4_000;
const BLOCK_APPENDS: usize = 50;
const PIPELINED: Duration = Duration::from_secs(3);
const GOAL_APPENDS_PER_S: f64 = 30_000.0;
const GOAL_SERIAL_RATIO: f64 = 3.0;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(bench());
}

async fn bench() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (shell, _process) = real::process();
    let bytes = wire::encode(&turns::record(RECORD_BYTES)).bytes.len();
    println!("records of {bytes} bytes on {}", folder.path().display());
    let broker =
        EmbeddedBroker::open(&folder.path().join("broker"), Options::default(), &shell).await.expect("it opens");
    let listener = shell.listen("127.0.0.1:0").await.expect("it listens");
    let address = listener.address();
    shell.spawn(server::serve_on(broker.clone(), listener, shell.clone()));
    let remote = connect(&format!("segue://{address}"), &shell).await.expect("it connects");

    let own = measure("in process", broker.log("own.0").await.expect("it opens"), folder.path()).await;
    let far = measure("segue://", remote.log("far.0").await.expect("it opens"), folder.path()).await;
    for (name, rate, ratio) in [("in process", own.0, own.1), ("segue://", far.0, far.1)] {
        println!(
            "{name:>10}: {:.2} × the goal of {GOAL_APPENDS_PER_S}/s; serial {ratio:.2} × bare (goal ≤ {GOAL_SERIAL_RATIO})",
            rate / GOAL_APPENDS_PER_S
        );
    }
}

/// A bare write + fdatasync of as many bytes, at the file's end.
fn bare(file: &mut File) -> Duration {
    let began = Instant::now();
    file.write_all(&[7; RECORD_BYTES]).and_then(|()| file.sync_data()).expect("the disk works");
    began.elapsed()
}

/// The same over bytes that are there already: no new length for the file system's journal to write.
fn bare_in_place(file: &File) -> Duration {
    let began = Instant::now();
    file.write_all_at(&[7; RECORD_BYTES], 0).and_then(|()| file.sync_data()).expect("the disk works");
    began.elapsed()
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

/// Appends per second with many in flight, and the ratio of the serial p50 to the bare one. The two take turns in blocks, because a
/// shared disk is not the same from one second to the next.
async fn measure(name: &str, log: Arc<dyn MessageLog>, folder: &Path) -> (f64, f64) {
    let record = turns::record(RECORD_BYTES);
    let mut file = File::create(folder.join("bare")).expect("a file");
    let (mut times, mut bare_times, mut in_place_times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SERIAL_APPENDS / BLOCK_APPENDS {
        bare_times.extend((0..BLOCK_APPENDS).map(|_| bare(&mut file)));
        in_place_times.extend((0..BLOCK_APPENDS).map(|_| bare_in_place(&file)));
        for _ in 0..BLOCK_APPENDS {
            let began = Instant::now();
            log.append(vec![record.clone()]).await.expect("the append succeeds");
            times.push(began.elapsed());
        }
    }
    let (p50, p99, bare) = (percentile(&mut times, 50), percentile(&mut times, 99), percentile(&mut bare_times, 50));
    println!(
        "{name:>10}: serial p50 {p50:?} p99 {p99:?}; bare p50 {bare:?}, in place {:?}",
        percentile(&mut in_place_times, 50)
    );
    let mut in_flight = VecDeque::new();
    let (began, mut done) = (Instant::now(), 0u64);
    while began.elapsed() < PIPELINED {
        while in_flight.len() < IN_FLIGHT {
            in_flight.push_back(log.append(vec![record.clone()]));
        }
        in_flight.pop_front().expect("some are in flight").await.expect("the append succeeds");
        done += 1;
    }
    for append in in_flight {
        append.await.expect("the append succeeds");
        done += 1;
    }
    #[allow(clippy::cast_precision_loss)]
    let rate = done as f64 / began.elapsed().as_secs_f64();
    let usage = log.usage().await.expect("usage is known");
    println!("{name:>10}: the broker's file has {} MiB after {} records here", usage.bytes >> 20, usage.tail);
    println!("{name:>10}: {rate:.0} durable appends/s with {IN_FLIGHT} in flight");
    (rate, p50.as_secs_f64() / bare.as_secs_f64())
}
