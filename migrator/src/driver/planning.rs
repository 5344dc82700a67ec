//! Plans: what a move would do, without doing it. Changes nothing but who waits for an answer.

use std::collections::BTreeMap;

use broker_adapter::ids::NodeName;
use tokio::sync::oneshot;

use super::create::LOCATE_LIMIT;
use super::{Driver, Inbox};
use crate::handle::{CreateError, NewMigration};
use crate::plan::{self, Plan};

/// How many plans are made at once.
const PLANNING_MAX: usize = 64;

/// Where a plan goes.
type Reply = oneshot::Sender<Result<Plan, CreateError>>;

/// Which facts a plan rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The log is read up to its tail: who owns is certain.
    ByTheLog,
    /// What nodes told last.
    ByHearsay,
}

/// Plans whose log is being read.
#[derive(Default)]
pub(super) struct Planning {
    last: u64,
    open: BTreeMap<u64, (NewMigration, Reply)>,
}

impl Driver {
    pub(super) fn plan(&mut self, new: NewMigration, how: How, reply: Reply) {
        let by_hearsay = plan::plan(&new, &self.facts(&new, None));
        let refused = plan::refusal(&new, &self.facts(&new, None)).is_err();
        if how == How::ByHearsay || refused {
            // Whoever asked may have gone.
            let _ = reply.send(Ok(by_hearsay));
            return;
        }
        if self.planning.open.len() >= PLANNING_MAX {
            let _ = reply.send(Err(CreateError::TooMany(PLANNING_MAX)));
            return;
        }
        self.planning.last += 1;
        let (number, hands, shard) = (self.planning.last, self.hands.clone(), plan::shard_of(&new));
        self.planning.open.insert(number, (new, reply));
        self.hands.shell.spawn(async move {
            let reading = hands.folds.at_tail(&shard);
            let owner = match hands.shell.within(LOCATE_LIMIT, reading).await {
                Some(Ok((fold, _))) => Ok(fold.owner().map(|owner| owner.node.clone())),
                Some(Err(error)) => Err(error.to_string()),
                None => Err(format!("its tail was not reached within {LOCATE_LIMIT:?}")),
            };
            // The driver has ended otherwise.
            let _ = hands.inbox.send(Inbox::PlanLocated(number, owner)).await;
        });
    }

    pub(super) fn plan_located(&mut self, number: u64, owner: Result<Option<NodeName>, String>) {
        let Some((new, reply)) = self.planning.open.remove(&number) else { return };
        let plan = match owner {
            Ok(owner) => Ok(plan::plan(&new, &self.facts(&new, Some(owner)))),
            Err(reason) => Err(CreateError::LogUnreadable { service: plan::shard_of(&new).to_string(), reason }),
        };
        let _ = reply.send(plan);
    }
}
