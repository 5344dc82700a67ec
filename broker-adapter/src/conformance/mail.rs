//! The contract of [`Mailbox`].
//!
//! Mail may be lost, so each case sends until its message arrives; what must never happen is a wrong or a divided one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};

use super::{Case, Fixture};
use crate::mailbox::Mailbox;
use crate::shell::Shell;

pub const CASES: &[Case] = &[
    ("a message reaches all who listen at its address", |f| reaches_all(f).boxed()),
    ("a message reaches nobody else", |f| reaches_nobody_else(f).boxed()),
    ("a large message arrives whole", |f| a_large_message(f).boxed()),
    ("mail to nobody is lost without harm", |f| to_nobody(f).boxed()),
];

const SEND_AGAIN: Duration = Duration::from_millis(100);

/// Sends until it arrives.
pub async fn send_until(
    shell: &Shell,
    mail: &Arc<dyn Mailbox>,
    to: &str,
    message: &Bytes,
    listener: &mut BoxStream<'static, Bytes>,
) {
    loop {
        mail.send(to, message.clone());
        match shell.within(SEND_AGAIN, listener.next()).await {
            None => {}
            Some(Some(got)) if got == *message => return,
            // An earlier try of another message.
            Some(Some(_)) => {}
            Some(None) => panic!("a subscription never ends"),
        }
    }
}

async fn reaches_all(fixture: Fixture) {
    let mail = fixture.broker.mailbox();
    let mut listeners = [mail.subscribe("node/edge-a"), mail.subscribe("node/edge-a")];
    for listener in &mut listeners {
        send_until(&fixture.shell, &mail, "node/edge-a", &Bytes::from_static(b"hello"), listener).await;
    }
}

async fn reaches_nobody_else(fixture: Fixture) {
    let mail = fixture.broker.mailbox();
    let mut other = mail.subscribe("node/edge-b");
    let mut listener = mail.subscribe("node/edge-a");
    send_until(&fixture.shell, &mail, "node/edge-a", &Bytes::from_static(b"hello"), &mut listener).await;
    assert!(fixture.shell.within(SEND_AGAIN, other.next()).await.is_none(), "it was not for this one");
}

async fn a_large_message(fixture: Fixture) {
    let mail = fixture.broker.mailbox();
    let mut listener = mail.subscribe("node/edge-a");
    let message: Bytes = (0..5 << 20).map(|at| u8::try_from(at % 241).expect("below 256")).collect::<Vec<u8>>().into();
    send_until(&fixture.shell, &mail, "node/edge-a", &message, &mut listener).await;
}

async fn to_nobody(fixture: Fixture) {
    let mail = fixture.broker.mailbox();
    drop(mail.subscribe("node/gone"));
    mail.send("node/gone", Bytes::from_static(b"hello"));
    mail.send("node/never", Bytes::from_static(b"hello"));
    let mut listener = mail.subscribe("node/edge-a");
    send_until(&fixture.shell, &mail, "node/edge-a", &Bytes::from_static(b"hello"), &mut listener).await;
}
