//! The book: every migration as the journal's counted words tell it, in the order of their acceptance.
//!
//! Pure: reading the same words gives the same book, live and after a crash. Of migrations whose after-care is over only the
//! last [`ENDED_KEPT`] are kept.

use std::collections::{BTreeMap, VecDeque};

use broker_adapter::ids::{MigrationId, ShardId};
use serde::{Deserialize, Serialize};

use crate::machine::{AttemptStart, Event, Migration, Order, next};

/// How many migrations that are over are remembered.
pub const ENDED_KEPT: usize = 1_000;

/// What a journal entry says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Word {
    /// A migration begins: its order, and the epoch of its first attempt.
    Accepted {
        /// What was asked for.
        order: Box<Order>,
        /// Its first attempt.
        first: AttemptStart,
    },
    /// Something happened to a migration.
    Happened {
        /// To which.
        migration: MigrationId,
        /// What.
        event: Event,
    },
}

impl Word {
    /// Whose word it is.
    #[must_use]
    pub fn migration(&self) -> MigrationId {
        match self {
            Word::Accepted { order, .. } => order.id,
            Word::Happened { migration, .. } => *migration,
        }
    }
}

/// All migrations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    migrations: BTreeMap<MigrationId, Migration>,
    order: VecDeque<MigrationId>,
    ended: BTreeMap<&'static str, u64>,
}

/// What a word changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Of which migration.
    pub migration: MigrationId,
    /// How it stood; `None` if it has just been accepted.
    pub before: Option<Migration>,
}

impl Book {
    /// Reads a word; `None` if it changes nothing, because it came twice or too late.
    pub fn read(&mut self, word: &Word) -> Option<Change> {
        let migration = word.migration();
        match word {
            Word::Accepted { order, first } => {
                if self.migrations.contains_key(&migration) {
                    return None;
                }
                self.migrations.insert(migration, Migration::accepted(Order::clone(order), first.clone()));
                self.order.push_back(migration);
                self.forget();
                Some(Change { migration, before: None })
            }
            Word::Happened { event, .. } => {
                let state = self.migrations.get_mut(&migration)?;
                let (after, _) = next(state, event);
                if after == *state {
                    return None;
                }
                let before = std::mem::replace(state, after);
                if let (None, Some((ending, _))) = (&before.ended, &state.ended) {
                    *self.ended.entry(ending.name()).or_default() += 1;
                }
                Some(Change { migration, before: Some(before) })
            }
        }
    }

    /// One migration.
    #[must_use]
    pub fn get(&self, id: MigrationId) -> Option<&Migration> {
        self.migrations.get(&id)
    }

    /// All of them, in the order of their acceptance.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Migration> {
        self.order.iter().filter_map(|id| self.migrations.get(id))
    }

    /// The one that moves this shard now.
    #[must_use]
    pub fn moving(&self, shard: &ShardId) -> Option<&Migration> {
        self.all().find(|migration| !migration.has_ended() && migration.order.shard == *shard)
    }

    /// How many have ended, by how.
    #[must_use]
    pub fn ended(&self) -> &BTreeMap<&'static str, u64> {
        &self.ended
    }

    fn forget(&mut self) {
        let is_over = |state: &Migration| state.has_ended() && state.undo.is_empty();
        let mut over = self.all().filter(|state| is_over(state)).count();
        let migrations = &mut self.migrations;
        self.order.retain(|id| {
            let forgets = over > ENDED_KEPT && migrations.get(id).is_some_and(is_over);
            if forgets {
                migrations.remove(id);
                over -= 1;
            }
            !forgets
        });
    }
}

#[cfg(test)]
mod tests {
    use broker_adapter::ids::{Epoch, Incarnation, Replica};

    use super::*;
    use crate::machine::{Operation, Strategy, What};

    fn accepted(number: u64) -> Word {
        let replica = |node: &str| Replica { node: node.parse().unwrap(), incarnation: Incarnation::from_bits(1) };
        let order = Order {
            id: MigrationId::from_bits(u128::from(number)),
            shard: ShardId::whole("board".parse().unwrap()),
            from: "a".parse().unwrap(),
            to: "b".parse().unwrap(),
            operation: Operation::Move,
            strategy: Strategy::Live,
            reason: None,
            accepted_ms: number,
            lag_limit_records: 16,
            require_proof: true,
            pause_limit_ms: 1,
            cutoff_ms: None,
            precopy_rounds: 1,
            keep_standby_ms: 0,
            max_blackout_ms: None,
            deadline_s: None,
            key: None,
            plan: None,
        };
        let first = AttemptStart { number: 1, epoch: Epoch(number), source: replica("a"), target: replica("b") };
        Word::Accepted { order: Box::new(order), first }
    }

    fn happened(number: u64, what: What) -> Word {
        let migration = MigrationId::from_bits(u128::from(number));
        Word::Happened { migration, event: Event { at_ms: 5, what } }
    }

    #[test]
    fn a_word_that_comes_twice_changes_nothing_the_second_time() {
        let mut book = Book::default();
        assert!(book.read(&accepted(1)).is_some());
        assert!(book.read(&happened(1, What::CancelRequested)).is_some());
        let before = book.clone();
        assert!(book.read(&accepted(1)).is_none() && book.read(&happened(1, What::CancelRequested)).is_none());
        assert!(book.read(&happened(2, What::CancelRequested)).is_none(), "nobody accepted it");
        assert_eq!(book, before);
    }

    #[test]
    fn only_the_last_thousand_that_are_over_are_kept_and_all_that_are_not() {
        let mut book = Book::default();
        book.read(&accepted(1));
        let many = ENDED_KEPT as u64 + 10;
        for number in 2..=many {
            book.read(&accepted(number));
            book.read(&happened(number, What::FenceForgotten { epoch: Epoch(number) }));
            book.read(&happened(number, What::CareGivenUp));
        }
        book.read(&accepted(many + 1));
        assert_eq!(book.all().count(), ENDED_KEPT + 2);
        assert!(book.get(MigrationId::from_bits(1)).is_some() && book.get(MigrationId::from_bits(2)).is_none());
        assert_eq!(book.moving(&ShardId::whole("board".parse().unwrap())).unwrap().attempt.epoch, Epoch(1));
    }
}
