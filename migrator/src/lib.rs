//! The migrator: a pure machine of phases, a journal, a driver, a directory of nodes, REST.
//!
//! It orders and never decides: who owns a shard is read from that shard's log. It can be killed anywhere; the next one
//! replays the journal, looks at the logs for the truth, and goes on.

pub mod machine;
