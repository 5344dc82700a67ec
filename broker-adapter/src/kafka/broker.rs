//! The broker as a whole: one process's connection to a cluster.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::broker::{Broker, ConnectError};
use crate::log::MessageLog;
use crate::mailbox::Mailbox;
use crate::shell::Shell;
use crate::store::CheckpointStore;

use super::client::{QUESTION_LIMIT, Quiet, Target};
use super::log::KafkaLog;
use super::mail::KafkaMail;
use super::objects::KafkaObjects;
use super::options::{KafkaOptions, Prefix};
use super::topics::{TopicError, Topics, Wanted, place_of_log};

/// For an event that is there already.
const EVENT_LIMIT: Duration = Duration::from_millis(100);

/// A connection to a Kafka cluster.
pub struct KafkaBroker {
    target: Target,
    shell: Shell,
    topics: Arc<Topics>,
    store: Arc<KafkaObjects>,
    mail: Arc<KafkaMail>,
}

impl KafkaBroker {
    /// Reaches the cluster, and makes and verifies the topics of the store and the mailbox.
    ///
    /// # Errors
    /// What cannot be reached, which property does not fit, or which topic is otherwise than it must be.
    pub async fn connect(url: &str, options: &KafkaOptions, shell: &Shell) -> Result<KafkaBroker, ConnectError> {
        let target = target(url, options)?;
        let failed = |reason: String| ConnectError::Unreachable { url: target.url(), reason };
        reach(&target, shell).await.map_err(failed)?;
        let topics = Arc::new(Topics::new(&target, shell).map_err(|error| failed(target.tell(&error)))?);

        let mail_topic = format!("{}.mail", target.prefix);
        topics.ensure(&Wanted::mail(mail_topic.clone())).await.map_err(|error| refused(&target, error))?;
        let store = KafkaObjects::open(&target, &topics, shell).await.map_err(|error| refused(&target, error))?;
        let mail = KafkaMail::start(&target, mail_topic, shell).map_err(failed)?;
        Ok(KafkaBroker { target, shell: shell.clone(), topics, store: Arc::new(store), mail: Arc::new(mail) })
    }
}

impl Broker for KafkaBroker {
    fn log(&self, name: &str) -> BoxFuture<'static, Result<Arc<dyn MessageLog>, ConnectError>> {
        let place = place_of_log(&self.target.prefix, name);
        let (target, shell, topics) = (self.target.clone(), self.shell.clone(), self.topics.clone());
        async move {
            let facts = topics.ensure(&Wanted::log(&place, &target)).await.map_err(|error| refused(&target, error))?;
            let log: Arc<dyn MessageLog> = Arc::new(KafkaLog::open(&target, place, facts, topics, &shell).await?);
            Ok(log)
        }
        .boxed()
    }

    fn store(&self) -> Arc<dyn CheckpointStore> {
        self.store.clone()
    }

    fn mailbox(&self) -> Arc<dyn Mailbox> {
        self.mail.clone()
    }

    fn url(&self) -> String {
        self.target.url()
    }
}

fn refused(target: &Target, error: TopicError) -> ConnectError {
    match error {
        TopicError::Mismatch { topic, wrong, mend } => ConnectError::Settings {
            what: format!("the topic {topic:?} of {}", target.url()),
            problems: format!("{}; mend it by: {mend}", wrong.join(", ")),
        },
        error => ConnectError::Unreachable { url: target.url(), reason: error.to_string() },
    }
}

/// Whether anybody answers there, as whom we come.
async fn reach(target: &Target, shell: &Shell) -> Result<(), String> {
    let world = target.clone();
    let asked = move || {
        let asker: BaseConsumer<Quiet> =
            world.client().create_with_context(Quiet::default()).map_err(|error| world.tell(&error))?;
        let Err(error) = asker.fetch_metadata(Some(&format!("{}.mail", world.prefix)), QUESTION_LIMIT) else {
            return Ok(());
        };
        // Why the connection failed waits in its queue.
        while asker.context().last_error().is_none() && asker.poll(EVENT_LIMIT).is_some() {}
        Err(asker
            .context()
            .last_error()
            .map_or_else(|| world.tell(&error), |said| world.options.properties.redact(&said)))
    };
    let hint = "is Kafka running there, and do kafka.properties in the configuration fit its listener?";
    shell.blocking(asked).await.map_err(|reason| format!("{reason}; {hint}"))
}

/// Takes a URL apart. No credentials stand in it: they are settings, and a URL is shown everywhere.
fn target(url: &str, options: &KafkaOptions) -> Result<Target, ConnectError> {
    let rest = url.strip_prefix("kafka://").unwrap_or(url);
    let (servers, path) = rest.split_once('/').unwrap_or((rest, ""));
    if let Some((_, servers)) = servers.rsplit_once('@') {
        let reason = "credentials do not belong into a URL: set sasl.username and sasl.password in kafka.properties";
        return Err(ConnectError::Unreachable { url: format!("kafka://{servers}"), reason: reason.to_owned() });
    }
    let fits = |server: &str| {
        server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if !servers.split(',').all(fits) {
        return Err(ConnectError::BadUrl(url.to_owned()));
    }
    let prefix = match path {
        "" => options.prefix.clone(),
        path => Prefix::try_from(path.to_owned()).map_err(|_| ConnectError::BadUrl(url.to_owned()))?,
    };
    Ok(Target { servers: servers.to_owned(), prefix: prefix.as_str().to_owned(), options: options.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> Result<String, ConnectError> {
        target(url, &KafkaOptions::default()).map(|target| target.url())
    }

    #[test]
    fn a_url_names_servers_and_perhaps_a_prefix() {
        for good in ["kafka://a:1", "kafka://a:1,b:2", "kafka://a:1/lab"] {
            assert_eq!(shown(good), Ok(good.to_owned()));
        }
        assert_eq!(shown("kafka://a:1/"), Ok("kafka://a:1".to_owned()));
        for bad in ["kafka://", "kafka://a", "kafka://a:1,", "kafka://a:99999", "kafka://a:1/B_"] {
            assert_eq!(shown(bad), Err(ConnectError::BadUrl(bad.to_owned())));
        }
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_repeated() {
        let refused = shown("kafka://segue:hunter2@a:1").unwrap_err().to_string();
        assert!(refused.contains("kafka.properties") && !refused.contains("hunter2"), "{refused}");
    }
}
