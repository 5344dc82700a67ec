//! The reference service of the tests as a process: `segue-ledger --listen HOST:PORT`.
//!
//! Faults come from `LEDGER_FAULTS`. With `LEDGER_ONCE=FILE` they happen once: the instance in which one fires makes the file,
//! and those that start later are sound. It ends when its parent does, so a killed sidecar leaves nothing behind.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::shell::Shell;
use segue_tests::ledger::{Faults, Ledger};

const CRASHED: i32 = 70;
const PARENT_CHECK: Duration = Duration::from_millis(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let parent = rustix::process::getppid();
    match start(&shell).await {
        Ok(address) => println!("listening on {address}"),
        Err(reason) => {
            eprintln!("segue-ledger: {reason}");
            return ExitCode::from(2);
        }
    }
    while rustix::process::getppid() == parent {
        shell.sleep(PARENT_CHECK).await;
    }
    ExitCode::SUCCESS
}

async fn start(shell: &Shell) -> Result<String, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, address] = arguments.as_slice() else { return Err("usage: segue-ledger --listen HOST:PORT".into()) };
    if flag != "--listen" {
        return Err(format!("unknown flag {flag:?}: usage: segue-ledger --listen HOST:PORT"));
    }
    let mut faults =
        Faults::parse(&std::env::var("LEDGER_FAULTS").unwrap_or_default()).map_err(|error| error.to_string())?;
    let once = std::env::var_os("LEDGER_ONCE").map(PathBuf::from);
    if once.as_ref().is_some_and(|once| once.exists()) {
        faults = Faults::default();
    }
    if !faults.start_takes.is_zero() {
        shell.sleep(faults.start_takes).await;
    }
    let faults = Arc::new(Mutex::new(faults));
    let mut ledger = Ledger::new(shell.clone(), faults, Arc::new(|| std::process::exit(CRASHED)));
    if let Some(once) = once {
        ledger = ledger.when_fired(Arc::new(move || {
            File::create(&once).expect("the folder of LEDGER_ONCE can be written");
        }));
    }
    ledger.serve(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}
