//! The connections of a process to NATS: four, so that no checkpoint's bytes stand before an append or a reply.
//!
//! A task of the process owns them; everything else holds them weakly. So the end of the process's task set ends the connections,
//! and so does the drop of the last handle.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;

use crate::broker::ConnectError;
use crate::log::RECORD_LEAST_BYTES;
use crate::shell::Shell;

use super::names::Space;
use super::options::NatsOptions;

/// One attempt to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a new process waits for a server that is about to start.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(200);
/// A server that is silent is asked after this; given up after three times this.
const PING_EVERY: Duration = Duration::from_secs(3);
/// Commands that may wait in async-nats, per connection.
const COMMANDS: usize = 8_192;
/// Messages that may wait for one subscriber: more than the server's flow control lets through (32 MiB) of our smallest records.
const SUBSCRIPTION_MESSAGES: usize = 262_144;

/// The way to NATS, cloneable; everything of a broker has one.
#[derive(Clone)]
pub struct Link {
    lines: Weak<Lines>,
    shell: Shell,
    options: Arc<NatsOptions>,
    names: Arc<Space>,
    /// Without credentials.
    url: Arc<str>,
    /// The connections end with the last of these.
    _alive: Arc<watch::Sender<()>>,
}

/// The connections.
pub struct Lines {
    pub appends: Line,
    pub reads: Line,
    pub store: Line,
    pub mail: Line,
}

/// One connection.
pub struct Line {
    pub client: Client,
    health: watch::Receiver<Health>,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub connected: bool,
    /// How often it broke.
    pub breaks: u64,
}

impl Line {
    /// Now, by what async-nats tells; a break shows here at once.
    pub fn health(&self) -> Health {
        let mut health = *self.health.borrow();
        health.connected &= self.client.connection_state() == State::Connected;
        health
    }

    /// Changes with every break and every return.
    pub fn changes(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Waits until it is connected, at most `limit`.
    pub async fn connected(&self, shell: &Shell, limit: Duration) -> Result<(), String> {
        let mut changes = self.health.clone();
        let returned = shell.within(limit, changes.wait_for(|health| health.connected)).await;
        match returned {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) => Err("the process's connections have ended".to_owned()),
            None => Err("no server can be reached".to_owned()),
        }
    }
}

impl Link {
    /// Connects.
    pub async fn open(url: &str, options: &NatsOptions, shell: &Shell) -> Result<Link, ConnectError> {
        let told = |reason| ConnectError::Unreachable { url: "nats://…".to_owned(), reason };
        let address = Address::of(url).map_err(told)?;
        let shown = address.shown.clone();
        let until = shell.now() + OPEN_LIMIT;
        let line = || patiently(&address, options, shell, until);
        let lines =
            Arc::new(Lines { appends: line().await?, reads: line().await?, store: line().await?, mail: line().await? });
        if !lines.appends.client.server_info().jetstream {
            let reason = "its server runs without JetStream; start it with a `jetstream { store_dir: … }`".to_owned();
            return Err(ConnectError::Unreachable { url: shown, reason });
        }
        check_payload(lines.appends.client.max_payload(), &shown)?;
        let (alive, mut gone) = watch::channel(());
        let weak = Arc::downgrade(&lines);
        shell.spawn(async move {
            let _lines = lines;
            // Nobody sends; it resolves when the last handle is gone.
            while gone.changed().await.is_ok() {}
        });
        Ok(Link {
            lines: weak,
            shell: shell.clone(),
            options: Arc::new(options.clone()),
            names: Arc::new(address.names),
            url: shown.into(),
            _alive: Arc::new(alive),
        })
    }

    /// The connections, for one question; `None` when the process has ended.
    pub fn lines(&self) -> Option<Arc<Lines>> {
        self.lines.upgrade()
    }

    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    pub fn options(&self) -> &NatsOptions {
        &self.options
    }

    pub fn names(&self) -> &Space {
        &self.names
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connect error of this broker.
    pub fn refused(&self, reason: impl Into<String>) -> ConnectError {
        ConnectError::Unreachable { url: self.url.to_string(), reason: reason.into() }
    }
}

/// Bodies that do not fit go to the checkpoint store; everything else must fit.
fn check_payload(max_payload: usize, shown: &str) -> Result<(), ConnectError> {
    if max_payload >= RECORD_LEAST_BYTES {
        return Ok(());
    }
    let problems = format!(
        "max_payload is {max_payload} bytes, and a request's head or another record may have {RECORD_LEAST_BYTES}; mend it with \
         `max_payload: 1MB` (its default) in the configuration of every server, and reload them"
    );
    Err(ConnectError::Settings { what: format!("the server at {shown}"), problems })
}

async fn patiently(
    address: &Address,
    options: &NatsOptions,
    shell: &Shell,
    until: Duration,
) -> Result<Line, ConnectError> {
    let mut wait = RETRY_FIRST;
    loop {
        let unreachable = |reason: String| ConnectError::Unreachable { url: address.shown.clone(), reason };
        let (told, health) = watch::channel(Health::default());
        let connect = prepare(address, options, told.clone()).await.map_err(unreachable)?;
        let error = match connect.connect(address.servers.as_slice()).await {
            Ok(client) => {
                told.send_modify(|health| health.connected = true);
                return Ok(Line { client, health });
            }
            Err(error) => error,
        };
        let kind = error.kind();
        let hopeless = !matches!(
            kind,
            async_nats::ConnectErrorKind::Io
                | async_nats::ConnectErrorKind::TimedOut
                | async_nats::ConnectErrorKind::MaxReconnects
        );
        let text = error.to_string();
        // A server that is asked for credentials says so in the middle of the opening.
        let denied = text.to_lowercase().contains("authorization");
        if denied || matches!(kind, async_nats::ConnectErrorKind::AuthorizationViolation) {
            let hint = "the credentials are wrong or missing: set user and password in the URL, or credentials or nkey in [nats]";
            return Err(unreachable(format!("{text}; {hint}")));
        }
        if hopeless || shell.now() + wait >= until {
            return Err(unreachable(format!("{text}; is nats-server running there?")));
        }
        shell.sleep(wait).await;
        wait = (2 * wait).min(RETRY_MAX);
    }
}

/// What async-nats is told.
async fn prepare(
    address: &Address,
    options: &NatsOptions,
    told: watch::Sender<Health>,
) -> Result<ConnectOptions, String> {
    let mut connect = ConnectOptions::new()
        .name("segue")
        .connection_timeout(CONNECT_LIMIT)
        .ping_interval(PING_EVERY)
        .client_capacity(COMMANDS)
        .subscription_capacity(SUBSCRIPTION_MESSAGES)
        // Subjects are made by `names`, which lets nothing through.
        .skip_subject_validation(true)
        .request_timeout(None)
        .reconnect_delay_callback(delay)
        .require_tls(options.tls.required)
        .event_callback(move |event| {
            tell(&told, &event);
            std::future::ready(())
        });
    connect = match &address.login {
        None => connect,
        Some((user, Some(password))) => connect.user_and_password(user.clone(), password.clone()),
        Some((token, None)) => connect.token(token.clone()),
    };
    if options.tls.first {
        connect = connect.tls_first();
    }
    if let Some(ca) = &options.tls.ca {
        connect = connect.add_root_certificates(ca.clone());
    }
    if let (Some(certificate), Some(key)) = (&options.tls.certificate, &options.tls.key) {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    if let Some(path) = &options.credentials {
        let unreadable = |error| format!("the credentials file {} cannot be used: {error}", path.display());
        connect = connect.credentials_file(path).await.map_err(unreadable)?;
    }
    if let Some(path) = &options.nkey {
        connect = connect.nkey(seed(path)?);
    }
    Ok(connect)
}

fn seed(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the nkey file {} cannot be read: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn delay(attempts: usize) -> Duration {
    let doubled = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(8);
    (RETRY_FIRST * 2u32.pow(doubled)).min(RETRY_MAX)
}

fn tell(told: &watch::Sender<Health>, event: &Event) {
    match event {
        Event::Connected => told.send_modify(|health| health.connected = true),
        Event::Disconnected | Event::Closed => told.send_modify(|health| {
            health.connected = false;
            health.breaks += 1;
        }),
        other => tracing::debug!(event = %other, "NATS"),
    }
}

/// A URL in its parts: async-nats takes no credentials from it.
struct Address {
    servers: Vec<String>,
    /// What stands before the `@`, once for all servers: a user and a password, or a token.
    login: Option<(String, Option<String>)>,
    /// What stands behind the servers.
    names: Space,
    /// The URL without credentials.
    shown: String,
}

impl Address {
    fn of(url: &str) -> Result<Address, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
        let (login, hosts) = match rest.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, rest),
        };
        let login =
            match login.map(|login| login.split_once(':').map_or((login, None), |(user, rest)| (user, Some(rest)))) {
                None => None,
                Some((user, password)) => Some((decoded(user)?, password.map(decoded).transpose()?)),
            };
        let shown = format!("{scheme}://{hosts}");
        let (hosts, space) = hosts.split_once('/').unwrap_or((hosts, ""));
        let servers = hosts.split(',').map(|host| format!("{scheme}://{}", host.trim())).collect();
        Ok(Address { servers, login, names: Space::of(space), shown })
    }
}

/// Percent-decoded.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "the credentials in the URL are not percent-encoded UTF-8".to_owned();
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_several_servers_has_one_login_and_does_not_show_it() {
        let address = Address::of("nats://ann:p%40ss:w@one:4222, two:4223/").unwrap();
        assert_eq!(address.servers, ["nats://one:4222", "nats://two:4223"]);
        assert_eq!(address.names, Space::of(""));
        assert_eq!(Address::of("nats://one:4222/demo").unwrap().names, Space::of("demo"));
        assert_eq!(address.login, Some(("ann".to_owned(), Some("p@ss:w".to_owned()))));
        assert!(!address.shown.contains("ann") && address.shown.starts_with("nats://one:4222"), "{}", address.shown);
        assert_eq!(Address::of("nats://secret@one:4222").unwrap().login, Some(("secret".to_owned(), None)));
        assert_eq!(Address::of("nats://one:4222").unwrap().login, None);
        assert!(Address::of("nats://a%zz@one:4222").is_err() && Address::of("nats://a%4@one:4222").is_err());
    }
}
