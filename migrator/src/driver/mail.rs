//! Mail to the driver: announcements of nodes and outcomes of steps. All of it may be lost, doubled and late.

use futures_util::StreamExt;
use sidecar::command::{ANNOUNCE_ADDRESS, FailureCode, Outcome, StepStatus, decode, migrator_address};

use super::{Driver, Hands, Inbox};
use crate::machine::{Migration, StepEnded, Undo, What};

/// Listens from now on.
pub fn subscribe(hands: &Hands) {
    let addresses = [ANNOUNCE_ADDRESS.to_owned(), migrator_address(hands.me.incarnation)];
    for address in addresses {
        let mut mail = hands.broker.mailbox().subscribe(&address);
        let inbox = hands.inbox.clone();
        hands.shell.spawn(async move {
            while let Some(bytes) = mail.next().await {
                let message = if address == ANNOUNCE_ADDRESS {
                    decode(&bytes).map(Inbox::Announced)
                } else {
                    decode(&bytes).map(Inbox::Outcome)
                };
                // A driver that does not keep up loses mail, as it may always: steps are asked for again.
                let _ = message.map(|message| inbox.try_send(message));
            }
        });
    }
}

impl Driver {
    /// A step's outcome becomes progress, or something to be written down.
    pub(super) fn outcome(&mut self, outcome: Outcome) {
        let id = outcome.migration;
        let (Some(state), Some(running)) = (self.book.get(id), self.running.get_mut(&id)) else { return };
        let is_present = outcome.attempt == state.attempt.number;
        let result = match outcome.status {
            StepStatus::Running { lag_records, .. } => {
                if is_present && outcome.from == state.attempt.target && !state.has_ended() {
                    running.lag_records = Some(lag_records);
                }
                return;
            }
            StepStatus::Done(done) => Ok(done),
            StepStatus::Failed(failure) => Err(failure),
        };
        if !state.has_ended() {
            let Outcome { attempt, step, from, .. } = outcome;
            return running.hear(What::StepEnded(StepEnded { attempt, step, from, result }));
        }
        let is_settled = result.as_ref().map_or_else(|failure| is_nothing_left(failure.code), |_| true);
        if is_settled {
            for undo in state.undo.iter().filter(|undo| is_answered(state, **undo, &outcome.step, &outcome.from)) {
                running.hear(What::CareDone(*undo));
            }
        }
    }
}

/// Whether a failure to take something back says that there is nothing to take back (any more) at that node.
fn is_nothing_left(code: FailureCode) -> bool {
    use FailureCode as F;
    matches!(code, F::WrongRole | F::WrongIncarnation | F::NoReplica | F::UnknownService)
}

fn is_answered(state: &Migration, undo: Undo, step: &str, from: &broker_adapter::ids::Replica) -> bool {
    let asked = match undo {
        Undo::Discard => Some(&state.attempt.target),
        Undo::ReleaseAtSource => Some(&state.attempt.source),
        Undo::ReleaseAtOwner => state.decided_by.as_ref().map(|fence| &fence.owner),
    };
    undo.step_name() == step && asked.is_some_and(|replica| replica.node == from.node)
}
