//! Where two replicas differ, as mail, journal, REST and people are told: the range, the first record, its first different part.
//!
//! A few hundred bytes at most. Both whole replies are in the checkpoint store, under the name that is told.

use std::fmt;

use broker_adapter::ids::{Hash, Position, Replica, ShardId};
use serde::{Deserialize, Serialize};

use crate::command::Reply;

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Differs {
    /// The running hashes over replies.
    Replies,
    /// The states' hashes.
    States,
}

/// Where, and in what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What was compared.
    pub what: Differs,
    /// The last position at which the replicas are known to agree.
    pub after: Position,
    /// The position at which they are known to differ.
    pub upto: Position,
    /// The first record whose replies differ, if the owner told it in time.
    pub position: Option<Position>,
    /// The first part in which they do: `status`, `header:NAME`, `json:/POINTER` or `body byte N`.
    pub field: Option<String>,
    /// That part of the owner's reply, shortened.
    pub owner: Option<String>,
    /// That part of the other replica's reply, shortened.
    pub target: Option<String>,
    /// The object in the checkpoint store that holds both replies.
    pub replies: Option<String>,
}

/// A replica asks the owner where they began to differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AskDifference {
    /// Which shard's.
    pub shard: ShardId,
    /// Who asks.
    pub asker: Replica,
    /// Its running hashes since the last agreement, oldest first.
    pub hashes: Vec<(Position, Hash)>,
}

/// The owner's answer to [`AskDifference`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnersReply {
    /// Which shard's.
    pub shard: ShardId,
    /// The owner.
    pub from: Replica,
    /// The first record at which the asker's hash differs.
    pub position: Position,
    /// What the owner replied there, if it is kept.
    pub reply: Option<Reply>,
}

impl Difference {
    /// Only the range is known.
    #[must_use]
    pub fn within(what: Differs, after: Position, upto: Position) -> Difference {
        Difference { what, after, upto, position: None, field: None, owner: None, target: None, replies: None }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { after, upto, .. } = self;
        if self.what == Differs::States {
            return write!(
                f,
                "the states differ at position {upto}, although all replies that were compared agree; make the state follow \
                 from the inputs, Segue-Time and Segue-Seed; if equal states are saved in different bytes, do not answer saves \
                 with `canonical`, or give the service a state_hash; or move it by strategy precopy, which replays nothing"
            );
        }
        match self.position {
            Some(position) => write!(f, "the replies differ from position {position} on (they agree up to {after})")?,
            None => write!(f, "the replies differ somewhere behind position {after} and up to {upto}")?,
        }
        if let (Some(field), Some(owner), Some(target)) = (&self.field, &self.owner, &self.target) {
            write!(f, ", there first in {field}: the owner's is {owner}, the other replica's {target}")?;
        }
        f.write_str("; take the time from the request's Segue-Time and randomness from its Segue-Seed")?;
        match self.field.as_deref() {
            Some(field) if field.starts_with("json:/") || field.starts_with("header:") => {
                write!(
                    f,
                    ", or leave this part out by ignore = [{field:?}] in [service.settings] if no state hangs on it"
                )?;
            }
            _ => f.write_str(
                ", or leave the part that differs out by `ignore` in [service.settings] if no state hangs on it",
            )?,
        }
        f.write_str(", or move the service by strategy precopy, which replays nothing")?;
        match &self.replies {
            Some(name) => write!(f, "; both replies are in the checkpoint store as {name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_tells_range_part_and_ways_on() {
        let mut difference = Difference::within(Differs::Replies, Position(3), Position(9));
        let said = difference.to_string();
        for word in ["behind position 3", "up to 9", "Segue-Time", "Segue-Seed", "`ignore`", "precopy"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        difference.position = Some(Position(5));
        difference.field = Some("json:/id".to_owned());
        (difference.owner, difference.target) = (Some("1".to_owned()), Some("2".to_owned()));
        let said = difference.to_string();
        for word in
            ["from position 5", "in json:/id: the owner's is 1", "other replica's 2", r#"ignore = ["json:/id"]"#]
        {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
