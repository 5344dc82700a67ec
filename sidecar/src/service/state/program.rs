//! State kind `command`: a program writes the state to its standard output, another reads it from its standard input.
//!
//! The state is whole only if the program ends with status 0: an end of its output alone says nothing. Programs end with the
//! sidecar, and as soon as nobody waits for them.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::shell::{Shell, TaskSet};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::super::ServiceError;
use super::{LoadBody, PIECE_BYTES, broken_off};
use crate::runner::Place;

/// How much of what a program writes to its standard error is told.
const ERROR_TAIL_BYTES: usize = 1 << 10;
/// How long a program's last words may take after its end: what it started may hold its standard error open.
const ERROR_WAIT: Duration = Duration::from_millis(100);

/// A state that streams out of a program.
pub(super) struct ProgramState {
    program: Program,
    output: ChildStdout,
    step_limit: Duration,
}

/// A running program.
struct Program {
    name: String,
    child: Child,
    errors: Errors,
    shell: Shell,
}

impl Program {
    fn start(
        place: &Place,
        words: &[String],
        shell: &Shell,
        set_up: impl FnOnce(&mut Command),
    ) -> Result<Program, ServiceError> {
        let name = words.join(" ");
        let failed = |reason: String| ServiceError::Program { program: name.clone(), reason };
        let mut command = place.command(words).ok_or_else(|| failed("is empty".to_owned()))?;
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        set_up(&mut command);
        let mut child = command.spawn().map_err(|error| failed(format!("cannot be started ({error})")))?;
        let errors = Errors::of(child.stderr.take(), shell);
        Ok(Program { name, child, errors, shell: shell.clone() })
    }

    fn failed(&self, reason: String) -> ServiceError {
        ServiceError::Program { program: self.name.clone(), reason }
    }

    fn late(&self, limit: Duration) -> ServiceError {
        self.failed(format!("did not go on within {} ms{}", limit.as_millis(), self.errors.told()))
    }

    async fn ends(&mut self, limit: Duration) -> Result<(), ServiceError> {
        let Some(ended) = self.shell.within(limit, self.child.wait()).await else {
            return Err(self.late(limit));
        };
        let status = ended.map_err(|error| self.failed(format!("cannot be waited for ({error})")))?;
        if status.success() {
            return Ok(());
        }
        self.errors.whole(&self.shell).await;
        Err(self.failed(format!("ended with {}{}", how(status), self.errors.told())))
    }
}

fn how(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("status {code}"))
}

impl ProgramState {
    pub fn begin(
        place: &Place,
        words: &[String],
        step_limit: Duration,
        shell: &Shell,
    ) -> Result<ProgramState, ServiceError> {
        let mut program = Program::start(place, words, shell, |command| {
            command.stdout(Stdio::piped());
        })?;
        let output = program.child.stdout.take().ok_or_else(|| program.failed("has no output".to_owned()))?;
        Ok(ProgramState { program, output, step_limit })
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>, ServiceError> {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let read = self.program.shell.within(self.step_limit, self.output.read_buf(&mut piece)).await;
        match read {
            None => Err(self.program.late(self.step_limit)),
            Some(Err(error)) => Err(self.program.failed(format!("cannot be read ({error})"))),
            Some(Ok(0)) => self.program.ends(self.step_limit).await.map(|()| None),
            Some(Ok(_)) => Ok(Some(piece.freeze())),
        }
    }
}

/// Runs a program to its end.
pub(super) async fn run(place: &Place, words: &[String], limit: Duration, shell: &Shell) -> Result<(), ServiceError> {
    Program::start(place, words, shell, |_| {})?.ends(limit).await
}

/// Gives a state to a program. One that ends early never reaches the program's end of input: it is killed before.
pub(super) async fn load(
    mut body: LoadBody,
    place: &Place,
    words: &[String],
    limit: Duration,
    shell: &Shell,
) -> Result<(), ServiceError> {
    let mut program = Program::start(place, words, shell, |command| {
        command.stdin(Stdio::piped());
    })?;
    let mut input = program.child.stdin.take().ok_or_else(|| program.failed("has no input".to_owned()))?;
    let began = shell.now();
    let written = match shell.within(limit, write(&mut body, &mut input)).await {
        Some(written) => written,
        None => return Err(program.late(limit)),
    };
    if let Ok(written) = written
        && written < body.length
    {
        if let Err(error) = program.child.kill().await {
            tracing::debug!(%error, "the program had ended already");
        }
        return Err(broken_off(&program.name));
    }
    drop(input);
    let left = limit.saturating_sub(shell.now() - began);
    program.ends(left).await?;
    match written {
        Ok(_) => Ok(()),
        Err(error) => Err(program.failed(format!("ended before it had read the whole state ({error})"))),
    }
}

async fn write(body: &mut LoadBody, input: &mut ChildStdin) -> std::io::Result<u64> {
    let mut written = 0;
    while let Some(piece) = body.pieces.recv().await {
        input.write_all(&piece).await?;
        written += piece.len() as u64;
    }
    Ok(written)
}

/// The end of what a program writes to its standard error.
struct Errors {
    tail: Arc<Mutex<Vec<u8>>>,
    ended: tokio::sync::oneshot::Receiver<()>,
    _reads: TaskSet,
}

impl Errors {
    fn of(from: Option<ChildStderr>, shell: &Shell) -> Errors {
        let (reader, reads) = shell.part();
        let (done, ended) = tokio::sync::oneshot::channel();
        let tail = Arc::<Mutex<Vec<u8>>>::default();
        let keep = tail.clone();
        if let Some(from) = from {
            reader.spawn(async move {
                read_tail(from, &keep).await;
                drop(done);
            });
        }
        Errors { tail, ended, _reads: reads }
    }

    async fn whole(&mut self, shell: &Shell) {
        // Either way: what is there is told.
        let _ = shell.within(ERROR_WAIT, &mut self.ended).await;
    }

    fn told(&self) -> String {
        let tail = self.tail.lock().expect("nothing panics under this lock");
        let text = String::from_utf8_lossy(&tail);
        if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) }
    }
}

async fn read_tail(mut from: ChildStderr, keep: &Mutex<Vec<u8>>) {
    let mut piece = [0u8; ERROR_TAIL_BYTES];
    while let Ok(read) = from.read(&mut piece).await {
        if read == 0 {
            return;
        }
        let mut tail = keep.lock().expect("nothing panics under this lock");
        tail.extend_from_slice(&piece[..read]);
        let over = tail.len().saturating_sub(ERROR_TAIL_BYTES);
        tail.drain(..over);
    }
}
