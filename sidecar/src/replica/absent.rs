//! In the place of a replica on a node that is only an ingress of the service: it refuses what only a replica can do, and says so.
//!
//! It never fences and never applies. A node that owned the shard when it still had a replica raises an alarm.

use broker_adapter::ids::NodeName;
use tokio::sync::{mpsc, watch};

use super::ReplicaInput;
use crate::command::{Command, FailureCode, Outcome, ReplicaState, Step, StepDone, StepFailure, StepStatus, encode};
use crate::shard::{Context, ReplicaView, TailView};

/// Runs until the process ends.
pub(super) async fn run(
    context: Context,
    mut inputs: mpsc::Receiver<ReplicaInput>,
    mut tail: watch::Receiver<TailView>,
    view: watch::Sender<ReplicaView>,
) {
    loop {
        tokio::select! { biased;
            input = inputs.recv() => match input {
                Some(ReplicaInput::Command(command)) => refuse(&context, &command),
                Some(ReplicaInput::Replaced(by)) => context.fail(replaced(&context, &by.incarnation.to_string())),
                // Whoever asks believes that the owner is here; it will read that it is not.
                Some(
                    ReplicaInput::AskReplies(_)
                    | ReplicaInput::AskKept(_)
                    | ReplicaInput::AskDifference(_)
                    | ReplicaInput::OwnersReply(_)
                    | ReplicaInput::TakeCheckpoint
                    | ReplicaInput::Begin(_),
                ) => {}
                None => return,
            },
            changed = tail.changed() => {
                if changed.is_err() {
                    // The ingress ended, and with it the process.
                    return;
                }
                let owner = tail.borrow_and_update().owner.as_ref().map(|owner| owner.node.clone());
                alarm(&context, owner.as_ref(), &view);
            }
        }
    }
}

/// The log names this node, and nobody here can serve.
fn alarm(context: &Context, owner: Option<&NodeName>, view: &watch::Sender<ReplicaView>) {
    let owns = owner == Some(&context.me.node);
    let trouble = owns.then(|| {
        format!(
            "{} owns {} and has no replica of it: its [[service]] has neither run nor attach; give it back what it had, and restart \
             the sidecar",
            context.me.node, context.shard
        )
    });
    if view.borrow().trouble == trouble {
        return;
    }
    if let Some(trouble) = &trouble {
        tracing::error!(shard = %context.shard, "{trouble}");
    }
    let state = if owns { ReplicaState::Stopped } else { ReplicaState::None };
    view.send_replace(ReplicaView { state, trouble, ..ReplicaView::default() });
}

fn refuse(context: &Context, command: &Command) {
    let status = if command.step == Step::Discard {
        // There is nothing to be dropped.
        StepStatus::Done(StepDone::Plain)
    } else {
        let message = format!(
            "{} is only an ingress of {}: its [[service]] has neither run nor attach; add one of them and state, restart the sidecar, \
             or choose another node",
            context.me.node, context.shard
        );
        StepStatus::Failed(StepFailure::new(FailureCode::UnknownService, &message))
    };
    let outcome = Outcome {
        migration: command.migration,
        attempt: command.attempt,
        step: command.step.name().to_owned(),
        from: context.me.clone(),
        status,
    };
    context.mailbox.send(&command.answer_to, encode(&outcome));
}

fn replaced(context: &Context, by: &str) -> String {
    format!(
        "another sidecar runs under this node's name {}: its run {by} took over from this one ({}); give each sidecar a name of its own",
        context.me.node, context.me.incarnation
    )
}
