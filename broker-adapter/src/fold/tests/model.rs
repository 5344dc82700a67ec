//! A slow model of the fold that forgets nothing it does not have to: every judgement scans all that ever counted.
//!
//! It covers ownership, sessions, keys and sources to the letter. Of an owner's other words it says only who may speak.

use super::*;

/// Everything that counted, in order.
#[derive(Default)]
pub(super) struct Model {
    remembered: u64,
    fences: Vec<Fence>,
    counted: Vec<Counted>,
    has_settings: bool,
}

/// A message or close that counted; its count is its index plus one.
struct Counted {
    name: MessageName,
    closes: Option<Session>,
    source: Option<SourcePosition>,
    /// What was asked, under which identity, if it was applied.
    applied: Option<(Identity, Request)>,
}

/// Under what a request is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identity {
    Name(MessageName),
    Client(String),
}

pub(super) fn identity(message: &Message) -> Identity {
    match &message.key {
        Key::Own { .. } => Identity::Name(message.name),
        Key::First { name, .. } => Identity::Name(*name),
        Key::Client { key } => Identity::Client(key.clone()),
    }
}

impl Model {
    pub fn new() -> Model {
        Model { remembered: Settings::default().keys_remembered, ..Model::default() }
    }

    fn count(&self) -> u64 {
        self.counted.len() as u64
    }

    /// What the fold must say of the next record; `None` for a word of the owner, which may still be void for what it says.
    pub fn judge(&mut self, record: &Record) -> Option<Verdict> {
        let writer = match record {
            Record::Message(message) => return Some(self.message(message)),
            Record::Close(close) => return Some(self.close(close)),
            Record::Fence(fence) => return self.fence(fence),
            Record::Mark(_) => return Some(Verdict::Noted),
            Record::Digest(word) => &word.writer,
            Record::Checkpoint(word) => &word.writer,
            Record::Pin(word) => &word.writer,
            Record::Attempt(word) => &word.writer,
            Record::Skip(word) => &word.writer,
            Record::Settings(word) => &word.writer,
            Record::Entry(word) => &word.writer,
            Record::Tick(_) | Record::Output(_) | Record::Effect(_) | Record::Seal(_) => {
                return Some(void(Void::Reserved));
            }
        };
        let owns = self.fences.last().is_some_and(|fence| fence.owner == writer.replica);
        if !owns || writer.epoch.0 != self.fences.len() as u64 {
            return Some(void(Void::NotOwner));
        }
        if let Record::Settings(word) = record
            && !self.has_settings
        {
            self.has_settings = true;
            self.remembered = word.settings.keys_remembered;
        }
        None
    }

    /// A fence that counts has no verdict here: the caller compares its fields.
    fn fence(&mut self, fence: &Fence) -> Option<Verdict> {
        if fence.epoch.0 != self.fences.len() as u64 + 1 {
            return Some(void(Void::StaleFence));
        }
        self.fences.push(fence.clone());
        None
    }

    pub fn epoch(&self) -> Epoch {
        Epoch(self.fences.len() as u64)
    }

    fn close(&mut self, close: &Close) -> Verdict {
        if let Err(reason) = self.session(close.name, close.base) {
            return void(reason);
        }
        self.counted.push(Counted { name: close.name, closes: Some(close.closes), source: None, applied: None });
        Verdict::Closed
    }

    fn message(&mut self, message: &Message) -> Verdict {
        if let Some(source) = &message.source {
            let of_source = self.counted.iter().filter_map(|counted| counted.source.as_ref());
            let last = of_source.filter(|other| other.source == source.source).map(|other| other.this).next_back();
            if last.unwrap_or(0) != source.previous || source.this <= source.previous {
                return void(Void::SourcePosition);
            }
        }
        if let Err(reason) = self.session(message.name, message.base) {
            return void(reason);
        }
        let identity = identity(message);
        let verdict = self.apply(message, &identity);
        let applied = (verdict == Verdict::Apply).then(|| (identity, message.request.clone()));
        let source = message.source.clone();
        self.counted.push(Counted { name: message.name, closes: None, source, applied });
        verdict
    }

    /// Whether a record is the next one of its session, from all that ever counted in it.
    fn session(&self, name: MessageName, base: Option<Count>) -> Result<(), Void> {
        let of_session = |counted: &Counted| counted.name.session == name.session;
        let last = self.counted.iter().rposition(of_session);
        let closed = self.counted.iter().position(|counted| counted.closes == Some(name.session));
        // Counts are indices plus one; a session is remembered until K counts after the later of the two.
        let touched = last.max(closed).map(|index| index as u64 + 1);
        match touched.filter(|at| self.count() - at <= self.remembered) {
            Some(_) if closed.is_some() => Err(Void::SessionClosed),
            Some(_) => {
                let expected = last.map_or(1, |index| self.counted[index].name.sequence.0 + 1);
                if name.sequence.0 == expected { Ok(()) } else { Err(Void::Sequence) }
            }
            None => {
                let near = base.is_some_and(|base| base.0 <= self.count() && self.count() - base.0 < self.remembered);
                if near && name.sequence.0 == 1 { Ok(()) } else { Err(Void::SessionUnknown) }
            }
        }
    }

    /// A name is applied once, ever; a client's key once in K counts. The message is about to be counted.
    fn apply(&self, message: &Message, identity: &Identity) -> Verdict {
        let count = self.count() + 1;
        if let Key::Own { count: sent } | Key::First { count: sent, .. } = &message.key
            && count - sent.0 > self.remembered
        {
            return Verdict::Expired;
        }
        let known = self.counted.iter().enumerate().rev().find_map(|(index, counted)| {
            let (other, request) = counted.applied.as_ref()?;
            let is_fresh = matches!(identity, Identity::Name(_)) || count - (index as u64 + 1) <= self.remembered;
            (other == identity && is_fresh).then_some((counted.name, request))
        });
        match known {
            Some((of, request)) => Verdict::Repeat(Repeated { of, same_request: *request == message.request }),
            None => Verdict::Apply,
        }
    }
}
