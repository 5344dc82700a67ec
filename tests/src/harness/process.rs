//! One process of the system under test: its command, its log file, and what can be done to it by its pid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use broker_adapter::shell::Shell;
use rustix::process::{Pid, Signal, kill_process};

use super::{HANG_LIMIT, POLL_EVERY};

const TAIL_LINES: usize = 60;

/// A started program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    log: PathBuf,
    child: Option<Child>,
}

/// How a process ended by itself.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote.
    pub log: String,
}

/// Where cargo put a binary of this workspace: beside the program that runs, or above the folder of the test that does.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let running = std::env::current_exe().expect("a running program has a file");
    let folder = running.parent().expect("a file lies in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().expect("deps lies in target/PROFILE") } else { folder };
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: build it first with `cargo build --workspace --bins --features cli/test-hooks` and the profile \
         of this program (tests/run does)",
        path.display()
    );
    path
}

impl Process {
    /// Starts `program`; what it writes goes to `FOLDER/NAME.log`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(
        folder: &Path,
        name: &str,
        program: PathBuf,
        arguments: Vec<String>,
        environment: BTreeMap<String, String>,
    ) -> Process {
        let mut process = Process::prepare(folder, name, environment);
        process.run(program, arguments);
        process
    }

    /// One that is not started yet.
    #[must_use]
    pub fn prepare(folder: &Path, name: &str, environment: BTreeMap<String, String>) -> Process {
        let (log, program) = (folder.join(format!("{name}.log")), PathBuf::new());
        Process { name: name.to_owned(), program, arguments: Vec::new(), environment, log, child: None }
    }

    /// Starts this program.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&mut self, program: PathBuf, arguments: Vec<String>) {
        self.from_now_on(program, arguments);
        self.restart();
    }

    /// What is started the next time.
    pub fn from_now_on(&mut self, program: PathBuf, arguments: Vec<String>) {
        (self.program, self.arguments) = (program, arguments);
    }

    /// Whether it was started, and not killed since.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Lets it read its configuration again (`SIGHUP`).
    pub fn reload(&self) {
        signal(self.pid(), Signal::HUP);
    }

    fn spawn(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the test folder can be written");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(&self.environment).stdin(Stdio::null());
        // Where people start it: samples name their files from here.
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        self.child = Some(child);
    }

    /// The name of its log file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pid while it runs.
    ///
    /// # Panics
    /// If it was killed.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the process was started"))
    }

    /// Kills it at once (`SIGKILL`) and waits for its end.
    ///
    /// # Panics
    /// If it had ended before: then the fault of the test did not happen.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the process was started");
        let before = child.try_wait().expect("a child can be waited for");
        assert!(before.is_none(), "{} had ended before it was to be killed: {before:?}\n{}", self.name, self.tail());
        child.kill().expect("a running child can be killed");
        child.wait().expect("a killed child ends");
    }

    /// Stops it where it stands (`SIGSTOP`).
    pub fn pause(&self) {
        signal(self.pid(), Signal::STOP);
    }

    /// Lets it go on (`SIGCONT`).
    pub fn resume(&self) {
        signal(self.pid(), Signal::CONT);
    }

    /// Starts it again, with the same command and files.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "kill {} before it is restarted", self.name);
        self.spawn();
    }

    /// Starts it again with another environment.
    pub fn restart_with(&mut self, environment: BTreeMap<String, String>) {
        self.environment = environment;
        self.restart();
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// After [`HANG_LIMIT`].
    pub async fn ended(&mut self, shell: &Shell) -> Ended {
        self.ended_within(HANG_LIMIT, shell).await
    }

    /// The same for what takes long by its nature.
    ///
    /// # Panics
    /// After the limit.
    pub async fn ended_within(&mut self, limit: Duration, shell: &Shell) -> Ended {
        let child = self.child.as_mut().expect("the process was started");
        let give_up = shell.now() + limit;
        let status: ExitStatus = loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(shell.now() < give_up, "waited {limit:?} for the end of {}", self.name);
            shell.sleep(POLL_EVERY).await;
        };
        self.child = None;
        Ended { code: status.code(), log: self.log() }
    }

    /// How much memory it occupies.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_pid()));
        let status = status.expect("a running process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
        number.expect("a running process occupies memory")
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// All that it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it wrote.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        format!("──── {} ({} lines, last {})\n{}", self.name, lines.len(), shown.len(), shown.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; either way nothing may stay behind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal to a process that a test started, or that one of those did.
///
/// # Panics
/// If there is no such process: then the fault of the test did not happen.
pub(super) fn signal(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot signal {pid:?}: {error}"));
}

/// How the kernel says that a process is: `T` if it was stopped, `Z` if it ended, nothing if it is gone.
#[must_use]
pub fn state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    // The name in parentheses may hold anything; the state follows the last one.
    stat.rsplit(") ").next()?.chars().next()
}

/// Lets a stopped process go on, if it is still there.
pub fn resume(pid: Pid) {
    // Its sidecar may have ended it meanwhile.
    let _ = kill_process(pid, Signal::CONT);
}

/// The pids and command lines of the processes that `ancestor` started, they or their parents, and that still run.
pub(super) fn descendants(ancestor: Pid) -> Vec<(Pid, Vec<String>)> {
    let parents = parents();
    let mut family = BTreeSet::from([ancestor.as_raw_pid()]);
    // Pids say nothing about order, so: until nobody is added.
    while let Some((child, _)) = parents.iter().find(|(pid, parent)| family.contains(parent) && !family.contains(pid)) {
        family.insert(*child);
    }
    family.remove(&ancestor.as_raw_pid());
    let found = family.into_iter().filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        Some((Pid::from_raw(pid)?, words.filter(|word| !word.is_empty()).collect()))
    });
    found.collect()
}

/// Each running process with its parent.
fn parents() -> Vec<(i32, i32)> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found = pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; state and parent follow the last one.
        let mut behind = stat.rsplit(") ").next()?.split(' ');
        let (state, parent) = (behind.next()?, behind.next()?);
        if state == "Z" { None } else { Some((pid, parent.parse().ok()?)) }
    });
    found.collect()
}
