//! The one task that owns the delay board's state, and the handle to ask it.
//!
//! A load takes the state away first (so memory never holds two), and only the latest load may bring one back: until then
//! flights and saves are refused.

use broker_adapter::shell::Shell;
use tokio::sync::{mpsc, oneshot};

use super::flight::Flight;
use super::padding::Change;
use super::state::{Applied, State};

/// Questions that may wait for the owner.
const INBOX_LIMIT: usize = 1024;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// A load began and has not succeeded.
    #[error("no state is loaded: PUT a saved one to /segue/state")]
    NotLoaded,
    /// A later load took over.
    #[error("another load began meanwhile")]
    Superseded,
    /// The process is ending.
    #[error("the service is ending")]
    Ending,
}

/// Names one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadNumber(u64);

enum Ask {
    Apply(Vec<Flight>, oneshot::Sender<Result<Vec<Applied>, AskError>>),
    Change(Change, oneshot::Sender<Result<u64, AskError>>),
    Snapshot(oneshot::Sender<Result<State, AskError>>),
    Unload(oneshot::Sender<Result<LoadNumber, AskError>>),
    Load(LoadNumber, Box<State>, oneshot::Sender<Result<(), AskError>>),
}

/// Asks the owner.
#[derive(Clone)]
pub struct Board {
    inbox: mpsc::Sender<Ask>,
}

/// Starts the owner of an empty state with so much padding. It is made when somebody first needs it: whoever loads another one
/// does not, and would wait for it.
#[must_use]
pub fn start(padding_bytes: u64, shell: &Shell) -> Board {
    let (inbox, mut asked) = mpsc::channel(INBOX_LIMIT);
    shell.spawn(async move {
        let mut owner = Owner { state: None, empty: Some(padding_bytes), loads: 0 };
        while let Some(ask) = asked.recv().await {
            owner.answer(ask);
        }
    });
    Board { inbox }
}

impl Board {
    /// Takes a flight.
    ///
    /// # Errors
    /// If no state is loaded.
    pub async fn apply(&self, flight: Flight) -> Result<Applied, AskError> {
        let applied = self.apply_all(vec![flight]).await?;
        applied.into_iter().next().ok_or(AskError::Ending)
    }

    /// Takes flights in their order, with nothing in between.
    ///
    /// # Errors
    /// If no state is loaded: then none was taken.
    pub async fn apply_all(&self, flights: Vec<Flight>) -> Result<Vec<Applied>, AskError> {
        self.ask(|answer| Ask::Apply(flights, answer)).await
    }

    /// Changes a part of the padding; how many bytes.
    ///
    /// # Errors
    /// If no state is loaded.
    pub async fn change(&self, change: Change) -> Result<u64, AskError> {
        self.ask(|answer| Ask::Change(change, answer)).await
    }

    /// The state as it is now.
    ///
    /// # Errors
    /// If none is loaded.
    pub async fn snapshot(&self) -> Result<State, AskError> {
        self.ask(Ask::Snapshot).await
    }

    /// Drops the state; the next one comes by [`Board::load`].
    ///
    /// # Errors
    /// If the process is ending.
    pub async fn unload(&self) -> Result<LoadNumber, AskError> {
        self.ask(Ask::Unload).await
    }

    /// Brings a state.
    ///
    /// # Errors
    /// If another [`Board::unload`] came after that of `number`.
    pub async fn load(&self, number: LoadNumber, state: State) -> Result<(), AskError> {
        self.ask(|answer| Ask::Load(number, Box::new(state), answer)).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Result<T, AskError>>) -> Ask) -> Result<T, AskError> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(ask(answer)).await.map_err(|_| AskError::Ending)?;
        answered.await.map_err(|_| AskError::Ending)?
    }
}

struct Owner {
    state: Option<State>,
    /// The padding of the first state, until that is made or replaced.
    empty: Option<u64>,
    loads: u64,
}

impl Owner {
    fn state(&mut self) -> Option<&mut State> {
        if let Some(padding_bytes) = self.empty.take() {
            self.state = Some(State::empty(padding_bytes));
        }
        self.state.as_mut()
    }

    /// Whoever asked may be gone: then the answer goes nowhere.
    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Apply(flights, answer) => {
                let applied = self.state().map(|state| flights.iter().map(|flight| state.apply(flight)).collect());
                let _ = answer.send(applied.ok_or(AskError::NotLoaded));
            }
            Ask::Change(change, answer) => {
                let changed = self.state().map(|state| state.padding.change_percent(change));
                let _ = answer.send(changed.ok_or(AskError::NotLoaded));
            }
            Ask::Snapshot(answer) => {
                let _ = answer.send(self.state().cloned().ok_or(AskError::NotLoaded));
            }
            Ask::Unload(answer) => {
                (self.state, self.empty) = (None, None);
                self.loads += 1;
                let _ = answer.send(Ok(LoadNumber(self.loads)));
            }
            Ask::Load(number, state, answer) => {
                let latest = number == LoadNumber(self.loads);
                if latest {
                    self.state = Some(*state);
                }
                let _ = answer.send(if latest { Ok(()) } else { Err(AskError::Superseded) });
            }
        }
    }
}
