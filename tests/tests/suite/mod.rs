//! The core of the end-to-end suite: the same files on every broker. Whoever includes this says which, as `BROKER`.

mod kills;
mod moves;
mod trims;

use super::BROKER;
