//! One process's connection to the memory broker.
//!
//! Owns the connection's dice, and the gate that every call passes: it takes its time, waits out a stall, and fails
//! while the line is cut off.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::faults::{Delay, Dice, Faults};
use super::log::MemoryLog;
use super::mailbox::MemoryMailbox;
use super::store::MemoryStore;
use super::{MemoryBroker, State};
use crate::broker::{Broker, ConnectError};
use crate::log::MessageLog;
use crate::mailbox::Mailbox;
use crate::store::CheckpointStore;

/// A connection; clones are the same one.
#[derive(Clone)]
pub(super) struct Link {
    pub broker: Arc<MemoryBroker>,
    pub line: Arc<str>,
    /// Shared with the queues of this connection's log handles.
    pub dice: LinkDice,
}

/// A connection's dice. The state's lock may be held while they are thrown, never the other way round.
#[derive(Clone)]
pub(super) struct LinkDice(Arc<Mutex<Dice>>);

impl LinkDice {
    pub fn throw<T>(&self, what: impl FnOnce(&mut Dice) -> T) -> T {
        what(&mut self.0.lock().expect("nothing panics under this lock"))
    }
}

/// What a call at the gate costs and risks.
pub(super) struct Toll {
    pub delay: fn(&Faults) -> Delay,
    pub failed_per_mille: fn(&Faults) -> u32,
    /// The name under which a failure is counted.
    pub fault: &'static str,
}

const CALL: Toll = Toll {
    delay: |faults| faults.call_delay,
    failed_per_mille: |faults| faults.call_failed_per_mille,
    fault: "call_failed_per_mille",
};

impl Link {
    pub fn new(broker: Arc<MemoryBroker>, line: &str, dice: Dice) -> Link {
        Link { broker, line: line.into(), dice: LinkDice(Arc::new(Mutex::new(dice))) }
    }

    /// Throws this link's dice.
    pub fn throw<T>(&self, what: impl FnOnce(&mut Dice) -> T) -> T {
        self.dice.throw(what)
    }

    /// Waits as long as a call takes; then runs it, unless the line is cut off or a fault strikes.
    pub async fn pass<T>(&self, toll: &Toll, call: impl FnOnce(&mut State) -> T) -> Result<T, String> {
        self.check()?;
        let delay = (toll.delay)(&self.broker.lock().faults);
        let arrival = self.broker.shell.now() + self.throw(|dice| dice.wait(delay));
        self.wait_out(arrival).await;
        self.check()?;
        let mut state = self.broker.lock();
        let chance = (toll.failed_per_mille)(&state.faults);
        if self.throw(|dice| dice.strikes(chance)) {
            state.count(toll.fault);
            return Err("a fault was played".to_owned());
        }
        Ok(call(&mut state))
    }

    /// As [`Link::pass`], for calls that cost and risk what small questions do.
    pub async fn call<T>(&self, call: impl FnOnce(&mut State) -> T) -> Result<T, String> {
        self.pass(&CALL, call).await
    }

    /// Waits until `moment`, and on while the line is stalled or until it is cut off.
    pub async fn wait_out(&self, moment: Duration) {
        let mut until = moment;
        while self.broker.shell.now() < until {
            self.broker.shell.sleep_until(until).await;
            until = until.max(self.stalled_until());
        }
        let stalled = self.stalled_until();
        if self.broker.shell.now() < stalled {
            self.broker.shell.sleep_until(stalled).await;
        }
    }

    fn stalled_until(&self) -> Duration {
        self.broker.lock().line(&self.line).stalled_until
    }

    fn check(&self) -> Result<(), String> {
        match self.broker.lock().line(&self.line).is_cut {
            true => Err(format!("the line of {:?} is cut off", self.line)),
            false => Ok(()),
        }
    }
}

impl Broker for Link {
    fn log(&self, name: &str) -> BoxFuture<'static, Result<Arc<dyn MessageLog>, ConnectError>> {
        let (link, name) = (self.clone(), name.to_owned());
        async move {
            let made = link.call(|state| {
                state.log(&name);
            });
            match made.await {
                Ok(()) => Ok(MemoryLog::open(link, &name) as Arc<dyn MessageLog>),
                Err(reason) => Err(ConnectError::Unreachable { url: "memory:".to_owned(), reason }),
            }
        }
        .boxed()
    }

    fn store(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(MemoryStore { link: self.clone() })
    }

    fn mailbox(&self) -> Arc<dyn Mailbox> {
        Arc::new(MemoryMailbox { link: self.clone() })
    }

    fn url(&self) -> String {
        "memory:".to_owned()
    }
}
