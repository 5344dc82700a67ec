//! An ingress that was away while the log was trimmed past it: what it had sent may have counted unseen.

use broker_adapter::follow::Follower;
use broker_adapter::ids::Sequence;
use broker_adapter::log::ReadError;
use broker_adapter::record::{Key, Message};

use super::{Ingress, body_bytes};
use crate::catch_up::CatchUp;
use crate::ingress::Answer;

impl Ingress {
    /// The first of the unconfirmed ones, if it stands at or before `last` in its session: it is confirmed now.
    pub(super) fn take_confirmed(&mut self, last: Sequence) -> Option<Message> {
        let message = self.unconfirmed.pop_front_if(|message| message.name.sequence <= last)?;
        self.unconfirmed_bytes -= body_bytes(&message) as u64;
        self.sent = self.sent.saturating_sub(1);
        Some(message)
    }

    /// The log was trimmed past this reader: it goes on from a newer checkpoint's fold. What counted in between is known by its
    /// session there; of a session that is not known any more, nobody knows: it is given up. What may have counted keeps its first
    /// key, by which the fold tells that it is too old; a client's own key cannot tell that.
    pub(super) async fn overtaken(&mut self, error: ReadError) -> Result<Follower, String> {
        if !matches!(error, ReadError::Trimmed { .. }) {
            return Err(error.to_string());
        }
        tracing::warn!(shard = %self.context.shard, %error, "the ingress reads on behind a newer checkpoint");
        let (fold, follower) = CatchUp::of(&self.context).run().await.map_err(|error| error.to_string())?;
        let before = self.fold.count();
        self.fold = fold;
        let now = self.context.shell.now();
        (self.progress_at, self.moved_at) = (now, now);
        if let Some(state) = self.fold.session(self.session) {
            while let Some(message) = self.take_confirmed(state.last) {
                // Where exactly it counted is not known, but not before this.
                self.clients.confirm(message.name, before, now);
            }
        } else {
            self.leave_to_clients();
        }
        self.large_overtaken(now);
        if let Some(closing) = &self.closing
            && self.fold.session(closing.close.name.session).is_some()
        {
            self.closed();
        }
        if !self.unconfirmed.is_empty() && self.closing.is_none() {
            self.resend = Some(now);
        }
        self.show_all();
        Ok(follower)
    }

    /// Messages that may have counted, and under a client's key that may be forgotten since: sent again, they could be applied
    /// twice. Their clients are told that nobody knows yet, and may repeat them.
    fn leave_to_clients(&mut self) {
        let (left, kept): (Vec<Message>, Vec<Message>) =
            self.unconfirmed.drain(..).partition(|message| matches!(message.key, Key::Client { .. }));
        self.unconfirmed.extend(kept);
        self.sent = 0;
        for message in left {
            self.unconfirmed_bytes -= body_bytes(&message) as u64;
            if let Some(waiting) = self.clients.take(message.name) {
                // The client may have gone.
                let _ = waiting.answer.send(Answer::TimedOut { key: waiting.key });
            }
        }
    }
}
