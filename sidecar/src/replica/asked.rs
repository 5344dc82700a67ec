//! What a replica tells an ingress that asks what has become of a message: only the owner knows (invariant 5).

use broker_adapter::ids::Position;

use super::engine::{Engine, Life};
use crate::command::{AskKept, KeptAnswer, NodeMail, ReplyMail, encode, node_address};

impl Engine {
    /// Answers whether it owns, how far it is, and the reply if that is kept.
    pub(super) fn tell_kept(&self, ask: &AskKept) {
        let me = &self.context.me;
        let mut answer =
            KeptAnswer { shard: ask.shard.clone(), id: ask.id, owns: false, applied: Position::ZERO, kept: None };
        if let Life::Active(active) = &self.life
            && self.gives()
        {
            answer.owns = true;
            answer.applied = active.fold.position();
            answer.kept = active.kept.get(ask.name).map(|(position, reply)| ReplyMail {
                shard: ask.shard.clone(),
                name: ask.name,
                position,
                epoch: active.fold.epoch(),
                from: me.clone(),
                reply: (*reply).clone(),
            });
        }
        self.context.mailbox.send(&node_address(&ask.ingress.node), encode(&NodeMail::KeptAnswer(answer)));
    }
}
