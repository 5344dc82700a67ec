//! How the ledger misbehaves, asked for from outside of its requests: a shared handle, or the environment of a process.

use std::collections::BTreeMap;
use std::time::Duration;

/// What shall go wrong. Places are places in the list: `crash_before: Some(5)` fires as the fifth text arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Crash with this request read and not applied.
    pub crash_before: Option<u64>,
    /// Crash with this request applied and not answered.
    pub crash_after: Option<u64>,
    /// Never answer this request.
    pub hang_at: Option<u64>,
    /// Apply this request, and never answer it.
    pub hang_after: Option<u64>,
    /// Whether the four above happen again each time that place is reached (a poisoned message), or once; so do the faults of batches.
    pub always: bool,
    /// Answer 500 to `GET /segue/state`.
    pub refuse_save: bool,
    /// Answer 500 to `PUT /segue/state`.
    pub refuse_load: bool,
    /// Answer 500 to so many `PUT /segue/state` more.
    pub refuse_loads: u32,
    /// Load the next state wrongly, once, and say nothing.
    pub corrupt_load: bool,
    /// Mix a random number into every link of the chain.
    pub nondeterministic: bool,
    /// Begin each saved state with a random comment, and do not promise `canonical`.
    pub not_canonical: bool,
    /// Do not promise `fixed`.
    pub not_fixed: bool,
    /// How long `GET /segue/state` takes.
    pub save_takes: Duration,
    /// How long `PUT /segue/state` takes.
    pub load_takes: Duration,
    /// How long a process takes until it listens.
    pub start_takes: Duration,
    /// Say in every answer which instance was loaded, with the `Segue-Instance` of the last load.
    pub echoes: bool,
    /// How long each request takes.
    pub delay: Duration,
    /// Leave the last line of a batch's answer away.
    pub batch_short: bool,
    /// Write a line in a batch's answer that is no reply.
    pub batch_garbled: bool,
}

/// The environment asks for something that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("LEDGER_FAULTS: {0:?} is unknown: use {known}", known = Faults::KNOWN)]
pub struct UnknownFault(pub String);

impl Faults {
    const KNOWN: &'static str = "crash-before=N, crash-after=N, hang-at=N, always, refuse-save, refuse-load, \
        nondeterministic, not-canonical, not-fixed, echoes, delay-us=N, start-takes-ms=N, load-takes-ms=N, save-takes-ms=N, batch-short, batch-garbled, divided by commas";

    /// Reads `crash-after=7,not-fixed`, the form of the environment variable `LEDGER_FAULTS`.
    ///
    /// # Errors
    /// [`UnknownFault`] tells which word.
    pub fn parse(text: &str) -> Result<Faults, UnknownFault> {
        let mut words = BTreeMap::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, number) = word.split_once('=').map_or((word, None), |(name, number)| (name, Some(number)));
            let number = number.map(|number| number.parse().map_err(|_| UnknownFault(word.to_owned()))).transpose()?;
            words.insert(name, number);
        }
        let mut faults = Faults::default();
        for (name, number) in words {
            match (name, number) {
                ("crash-before", Some(_)) => faults.crash_before = number,
                ("crash-after", Some(_)) => faults.crash_after = number,
                ("hang-at", Some(_)) => faults.hang_at = number,
                ("delay-us", Some(us)) => faults.delay = Duration::from_micros(us),
                ("load-takes-ms", Some(ms)) => faults.load_takes = Duration::from_millis(ms),
                ("start-takes-ms", Some(ms)) => faults.start_takes = Duration::from_millis(ms),
                ("save-takes-ms", Some(ms)) => faults.save_takes = Duration::from_millis(ms),
                ("always", None) => faults.always = true,
                ("refuse-save", None) => faults.refuse_save = true,
                ("refuse-load", None) => faults.refuse_load = true,
                ("nondeterministic", None) => faults.nondeterministic = true,
                ("not-canonical", None) => faults.not_canonical = true,
                ("not-fixed", None) => faults.not_fixed = true,
                ("batch-short", None) => faults.batch_short = true,
                ("batch-garbled", None) => faults.batch_garbled = true,
                ("echoes", None) => faults.echoes = true,
                _ => return Err(UnknownFault(name.to_owned())),
            }
        }
        Ok(faults)
    }

    /// Whether the load that came now is refused.
    pub(super) fn refuses_load(&mut self) -> bool {
        let refuses = self.refuse_load || self.refuse_loads > 0;
        self.refuse_loads = self.refuse_loads.saturating_sub(1);
        refuses
    }

    /// The value of the response header `Segue-Snapshot`, if anything is promised.
    #[must_use]
    pub fn promises(&self) -> Option<&'static str> {
        match (self.not_fixed, self.not_canonical) {
            (false, false) => Some("fixed, canonical"),
            (false, true) => Some("fixed"),
            (true, false) => Some("canonical"),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_words() {
        let faults = Faults::parse("crash-after=7, not-fixed,delay-us=20,save-takes-ms=30").expect("all known");
        assert_eq!(faults.save_takes, Duration::from_millis(30));
        assert_eq!(faults.crash_after, Some(7));
        assert_eq!(faults.delay, Duration::from_micros(20));
        assert_eq!(faults.promises(), Some("canonical"));
        assert_eq!(Faults::parse(""), Ok(Faults::default()));
    }

    #[test]
    fn an_unknown_word_is_refused_by_name() {
        assert_eq!(Faults::parse("explode"), Err(UnknownFault("explode".to_owned())));
        assert_eq!(Faults::parse("crash-after=soon"), Err(UnknownFault("crash-after=soon".to_owned())));
    }
}
