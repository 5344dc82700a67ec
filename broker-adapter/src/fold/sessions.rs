//! Which messages count: each exactly once, in its session's order (design section 3, "Sessions and keys").
//!
//! A session begins with a record that carries `base` and stands within K counts of it, and is forgotten K counts after its
//! last counted record or its close. So a late first record of a forgotten session cannot begin it anew: its base is as old.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Bug, Rules, Void};
use crate::ids::{Count, MessageName, Sequence, Session};

/// What is known of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// Its last counted sequence; 0 if it was closed before any record of its own counted.
    pub last: Sequence,
    /// The count at its last counted record or its close.
    pub at: Count,
    /// Whether another session closed it.
    pub closed: bool,
}

/// All sessions that are remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    known: BTreeMap<Session, SessionState>,
    by_age: BTreeSet<(Count, Session)>,
}

impl Sessions {
    /// Whether this record is the next one of its session; `count` is that of the records before it.
    pub(super) fn check(
        &self,
        name: MessageName,
        base: Option<Count>,
        count: Count,
        remembered: u64,
        rules: Rules,
    ) -> Result<(), Void> {
        if rules.plant(Bug::SequenceGap) {
            return Ok(());
        }
        match self.known.get(&name.session) {
            Some(state) if state.closed => Err(Void::SessionClosed),
            Some(state) if state.last.next() == name.sequence => Ok(()),
            Some(_) => Err(Void::Sequence),
            None => {
                let near = base.is_some_and(|base| base <= count && count.0 - base.0 < remembered);
                if near && name.sequence == Sequence::FIRST { Ok(()) } else { Err(Void::SessionUnknown) }
            }
        }
    }

    pub(super) fn advance(&mut self, name: MessageName, count: Count) {
        self.set(name.session, SessionState { last: name.sequence, at: count, closed: false });
    }

    /// Closes a session, known or not: a late first record of it must not begin it anew.
    pub(super) fn close(&mut self, session: Session, count: Count) {
        let last = match self.known.get(&session) {
            Some(state) if state.closed => return,
            Some(state) => state.last,
            None => Sequence::default(),
        };
        self.set(session, SessionState { last, at: count, closed: true });
    }

    /// Forgets what is more than K counts old.
    pub(super) fn forget(&mut self, count: Count, remembered: u64) {
        while let Some(&(at, session)) = self.by_age.first() {
            if at.0 + remembered >= count.0 {
                break;
            }
            self.by_age.remove(&(at, session));
            self.known.remove(&session);
        }
    }

    /// What is known of a session.
    #[must_use]
    pub fn get(&self, session: Session) -> Option<SessionState> {
        self.known.get(&session).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    fn set(&mut self, session: Session, state: SessionState) {
        if let Some(old) = self.known.insert(session, state) {
            self.by_age.remove(&(old.at, session));
        }
        self.by_age.insert((state.at, session));
    }
}
