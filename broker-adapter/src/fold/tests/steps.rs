//! Random logs: honest ingresses and bridges, zombies that say anything, and a network that does anything.
//!
//! Every record that anybody ever sent may land now, later, twice, in any order, or never.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const NODES: [&str; 3] = ["a", "b", "c"];
const INGRESSES: usize = 3;

/// What happens next. Indices choose among what there is then.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// An ingress sends a message in its session; it lands at once or only later.
    Send {
        ingress: usize,
        key: Asks,
        lag: u64,
        lands: bool,
    },
    /// An ingress gives its session up, or begins one without closing the last (it has crashed).
    Begin {
        ingress: usize,
        closes: bool,
        lag: u64,
        lands: bool,
    },
    /// Something that was sent before lands, again or at last.
    Land(Index),
    Fence {
        ahead: u64,
        node: usize,
        incarnation: u128,
    },
    Word {
        word: Word,
        behind: u64,
        node: usize,
        incarnation: u128,
        at: Index,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Asks {
    Own,
    Client(u8),
    /// Again what was sent under its own name before.
    Again(Index),
    Bridge {
        source: u8,
        skipped: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    Digest,
    Checkpoint,
    Pin(u128),
    Release(u128),
    Attempt(u64),
    Skip,
    Settings,
    Mark,
}

fn asks() -> impl Strategy<Value = Asks> {
    prop_oneof![
        4 => Just(Asks::Own),
        3 => (0..3u8).prop_map(Asks::Client),
        3 => any::<Index>().prop_map(Asks::Again),
        1 => (0..2u8, 0..2u64).prop_map(|(source, skipped)| Asks::Bridge { source, skipped }),
    ]
}

fn words() -> impl Strategy<Value = Word> {
    prop_oneof![
        2 => Just(Word::Digest),
        4 => Just(Word::Checkpoint),
        2 => (0..3u128).prop_map(Word::Pin),
        1 => (0..3u128).prop_map(Word::Release),
        2 => (0..4u64).prop_map(Word::Attempt),
        2 => Just(Word::Skip),
        1 => Just(Word::Settings),
        1 => Just(Word::Mark),
    ]
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let often = prop::bool::weighted(0.7);
    let step = prop_oneof![
        8 => (0..INGRESSES, asks(), 0..3u64, often)
            .prop_map(|(ingress, key, lag, lands)| Step::Send { ingress, key, lag, lands }),
        1 => (0..INGRESSES, any::<bool>(), 0..3u64, often)
            .prop_map(|(ingress, closes, lag, lands)| Step::Begin { ingress, closes, lag, lands }),
        5 => any::<Index>().prop_map(Step::Land),
        1 => (0..3u64, 0..NODES.len(), 0..2u128)
            .prop_map(|(ahead, node, incarnation)| Step::Fence { ahead, node, incarnation }),
        4 => (words(), prop_oneof![3 => Just(0), 1 => 1..3u64], prop_oneof![3 => Just(9), 1 => 0..NODES.len()], 0..2u128, any::<Index>())
            .prop_map(|(word, behind, node, incarnation, at)| Step::Word { word, behind, node, incarnation, at }),
    ];
    prop::collection::vec(step, 1..120)
}

/// The honest writers: what each ingress and bridge would send next.
struct Writers {
    sent: Vec<Record>,
    own: Vec<(MessageName, u64)>,
    sessions: [(u128, u64, u64); INGRESSES],
    next_session: u128,
    bridges: [u64; 2],
}

impl Writers {
    fn new() -> Writers {
        let sessions = [(1, 0, 0), (2, 0, 0), (3, 0, 0)];
        Writers { sent: Vec::new(), own: Vec::new(), sessions, next_session: 4, bridges: [0; 2] }
    }

    /// The record that this step sends, if it sends one now.
    fn step(&mut self, step: &Step, fold: &Fold) -> Option<Record> {
        let (record, lands) = match step {
            Step::Send { ingress, key, lag, lands } => (self.send(*ingress, key, read_count(fold, *lag)), *lands),
            Step::Begin { ingress, closes, lag, lands } => {
                let old = self.sessions[*ingress].0;
                let count = read_count(fold, *lag);
                self.sessions[*ingress] = (self.next_session, u64::from(*closes), count);
                self.next_session += 1;
                if !closes {
                    return None;
                }
                (close(self.sessions[*ingress].0, 1, Some(count), old), *lands)
            }
            Step::Land(index) => {
                return if self.sent.is_empty() { None } else { Some(index.get(&self.sent).clone()) };
            }
            Step::Fence { ahead, node, incarnation } => {
                (fence(fold.epoch().0 + ahead, replica(NODES[*node], *incarnation)), true)
            }
            Step::Word { word, behind, node, incarnation, at } => {
                let owner = fold.owner().cloned();
                let speaker = match NODES.get(*node) {
                    Some(node) => replica(node, *incarnation),
                    None => owner.unwrap_or_else(|| replica("a", 0)),
                };
                let writer = Writer { epoch: Epoch(fold.epoch().0.saturating_sub(*behind)), replica: speaker };
                (word_of(*word, writer, *at, fold), true)
            }
        };
        self.sent.push(record.clone());
        lands.then_some(record)
    }

    fn send(&mut self, ingress: usize, asks: &Asks, count: u64) -> Record {
        let (session, last, base) = &mut self.sessions[ingress];
        *last += 1;
        if *last == 1 {
            *base = count;
        }
        let name = name(*session, *last);
        let base = (*last == 1).then_some(*base);
        let body = format!("{}", name.sequence.0 % 2);
        let key = match asks {
            Asks::Again(index) if !self.own.is_empty() => {
                let (name, sent) = *index.get(&self.own);
                first(name, sent)
            }
            Asks::Client(key) => client(&format!("key-{key}")),
            Asks::Own | Asks::Again(_) | Asks::Bridge { .. } => {
                self.own.push((name, count));
                own(count)
            }
        };
        // Under a name everybody asks the same; under a client's key, the client does what it likes.
        let body = if matches!(key, Key::Client { .. }) { body } else { "x".to_owned() };
        let Record::Message(mut message) = asking(session_bits(name), name.sequence.0, base, key, &body) else {
            unreachable!()
        };
        if let Asks::Bridge { source, skipped } = asks {
            let last = &mut self.bridges[usize::from(*source)];
            let (previous, this) = (*last + skipped, *last + skipped + 1);
            *last = this;
            message.source = Some(SourcePosition { source: format!("source-{source}"), previous, this });
        }
        Record::Message(message)
    }
}

fn session_bits(name: MessageName) -> u128 {
    name.session.0.0
}

/// What an ingress has read that is `lag` counts behind.
fn read_count(fold: &Fold, lag: u64) -> u64 {
    fold.count().0.saturating_sub(lag)
}

fn word_of(word: Word, writer: Writer, at: Index, fold: &Fold) -> Record {
    let next = usize::try_from(fold.position().0).unwrap() + 2;
    let position = at.index(next) as u64;
    let kept: Vec<_> = fold.checkpoints().kept().iter().map(|kept| kept.position.0).collect();
    let some_kept = if kept.is_empty() { position } else { *at.get(&kept) };
    match word {
        Word::Digest => digest(writer, position),
        Word::Checkpoint => checkpoint(writer, fold.position().0.saturating_sub(position % 8)),
        Word::Pin(holder) => pin(writer, holder, some_kept),
        Word::Release(holder) => release(writer, holder, some_kept),
        Word::Attempt(length) => attempt(writer, position, position + length),
        Word::Skip => skip(writer, position),
        Word::Settings => {
            let pin_limit_records = 1 + position % 20;
            settings_by(writer, Settings { keys_remembered: position, pin_limit_records, ..Settings::default() })
        }
        Word::Mark => mark(),
    }
}

/// Plays the steps behind a first fence and the settings of K; gives the entries.
pub(super) fn play(
    keys_remembered: u64,
    steps: &[Step],
    mut look: impl FnMut(&Fold, &Entry, &Verdict),
) -> (Fold, Vec<Entry>) {
    let (mut fold, mut writers, mut entries) = (Fold::new(), Writers::new(), Vec::new());
    let settings = Settings { keys_remembered, pin_limit_records: 25, ..Settings::default() };
    let mut beginning = vec![fence(1, replica("a", 1)), settings_by(a(), settings)].into_iter();
    let mut steps = steps.iter();
    loop {
        let record = match beginning.next() {
            Some(record) => Some(record),
            None => match steps.next() {
                Some(step) => writers.step(step, &fold),
                None => return (fold, entries),
            },
        };
        let Some(record) = record else { continue };
        let entry = entry(fold.position().next(), record);
        let verdict = fold.observe(&entry);
        look(&fold, &entry, &verdict);
        entries.push(entry);
    }
}
