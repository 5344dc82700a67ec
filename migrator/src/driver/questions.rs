//! What the handle asks of the driver: what stands in the book and the directory, and to be told of an end.

use std::time::Duration;

use broker_adapter::ids::MigrationId;
use tokio::sync::oneshot;

use super::{Driver, Inbox};
use crate::handle::{CancelError, ListFilter};
use crate::machine::{Migration, Operation};
use crate::series::Lines;
use crate::view::{self, Beside, MigrationView, Status};

impl Driver {
    /// Questions that change nothing. Whoever asked may have gone: then the answer goes nowhere.
    pub(super) fn answer(&self, question: Inbox) {
        let now = self.hands.shell.now();
        match question {
            Inbox::Get(id, reply) => drop(reply.send(self.view(id))),
            Inbox::List(reply) => {
                let ids = self.book.all().rev().map(|state| state.order.id);
                drop(reply.send(ids.filter_map(|id| self.view(id)).collect()));
            }
            Inbox::Page(filter, reply) => drop(reply.send(self.page(&filter))),
            Inbox::Services(reply) => drop(reply.send(view::services(&self.directory, &self.book, now))),
            Inbox::Nodes(reply) => drop(reply.send(view::nodes(&self.directory, now))),
            Inbox::Series(id, reply) => drop(reply.send(self.looking.lines.told(id))),
            Inbox::Recording(id, reply) => drop(reply.send(self.recording(id))),
            Inbox::Listen(after, of, reply) => drop(reply.send(self.listen(after, of))),
            Inbox::Status(reply) => drop(reply.send(self.status(now))),
            _ => unreachable!("only questions are answered here"),
        }
    }

    pub(super) fn status(&self, now: Duration) -> Status {
        let silent = self.directory.nodes().filter(|node| node.is_silent(now)).count();
        Status {
            ended: self.book.ended().iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            running: self.running.len() as u64,
            nodes_alive: (self.directory.nodes().count() - silent) as u64,
            nodes_silent: silent as u64,
            journal_position: self.journal.position().0,
            journal_epoch: self.journal.epoch().0,
            journal_trouble: self.journal_trouble.clone(),
        }
    }

    pub(super) fn view(&self, id: MigrationId) -> Option<MigrationView> {
        let state = self.book.get(id)?;
        let lag_records = self.running.get(&id).and_then(|running| running.lag_records);
        let why_not_undo = self.after(id, Operation::Undo { of: id }).err().map(|error| error.to_string());
        let forecast = self.forecast(state);
        let stall = self.looking.lines.get(id).and_then(Lines::stall);
        let blackout_ms = stall.map(|stall| u64::try_from(stall.as_millis()).unwrap_or(u64::MAX));
        let beside = Beside { lag_records, blackout_ms, forecast, why_not_undo };
        Some(MigrationView::of(state, beside))
    }

    /// What is shown is only what the page holds: to show one looks at all that came later.
    fn page(&self, filter: &ListFilter) -> (Vec<MigrationView>, bool) {
        let is_meant = |state: &&Migration| {
            let order = &state.order;
            filter.service.as_ref().is_none_or(|service| order.shard.service == *service)
                && filter.node.as_ref().is_none_or(|node| order.from == *node || order.to == *node)
                && filter.outcome.is_none_or(|outcome| state.ended.is_some_and(|(ending, _)| ending == outcome))
                && filter.running.is_none_or(|running| running != state.has_ended())
        };
        let known = filter.behind.filter(|(_, id)| self.book.get(*id).is_some());
        let newest_first = self.book.all().rev();
        let mut meant: Vec<MigrationId> = match (known, filter.behind) {
            (Some((_, last)), _) => {
                let behind = newest_first.skip_while(|state| state.order.id != last).skip(1);
                behind.filter(is_meant).take(filter.page_size + 1).map(|state| state.order.id).collect()
            }
            // It was forgotten meanwhile, and nearly everything behind it too.
            (None, Some((before_ms, _))) => {
                let behind = newest_first.filter(|state| state.order.accepted_ms < before_ms);
                behind.filter(is_meant).take(filter.page_size + 1).map(|state| state.order.id).collect()
            }
            (None, None) => {
                newest_first.filter(is_meant).take(filter.page_size + 1).map(|state| state.order.id).collect()
            }
        };
        let has_more = meant.len() > filter.page_size;
        meant.truncate(filter.page_size);
        (meant.into_iter().filter_map(|id| self.view(id)).collect(), has_more)
    }

    /// Tells those who wait for a cancel or an end, and lets go of what is over.
    pub(super) fn notify(&mut self, id: MigrationId) {
        let (Some(view), Some(state)) = (self.view(id), self.book.get(id)) else { return };
        let Some(running) = self.running.get_mut(&id) else { return };
        if state.cancel_requested || state.has_ended() {
            for reply in running.cancelling.drain(..) {
                let _ = reply.send(Ok(view.clone()));
            }
        }
        if state.has_ended() {
            running.follower = None;
            for reply in self.waiting.remove(&id).into_iter().flatten() {
                let _ = reply.send(Some(view.clone()));
            }
            if state.undo.is_empty() {
                self.running.remove(&id);
            }
        }
    }

    pub(super) fn cancel(&mut self, id: MigrationId, reply: oneshot::Sender<Result<MigrationView, CancelError>>) {
        let answer = match (self.book.get(id), self.running.get_mut(&id)) {
            (None, _) => Err(CancelError::Unknown(id)),
            (Some(Migration { ended: Some((ending, _)), .. }), _) => {
                Err(CancelError::Ended { id, outcome: ending.name() })
            }
            (Some(state), Some(running)) if !state.cancel_requested => return running.cancelling.push(reply),
            (Some(_), _) => Ok(self.view(id).expect("it is in the book")),
        };
        let _ = reply.send(answer);
    }

    pub(super) fn wait_end(&mut self, id: MigrationId, reply: oneshot::Sender<Option<MigrationView>>) {
        match self.book.get(id) {
            Some(state) if !state.has_ended() => {
                let waiting = self.waiting.entry(id).or_default();
                waiting.retain(|reply| !reply.is_closed());
                waiting.push(reply);
            }
            _ => drop(reply.send(self.view(id))),
        }
    }
}
