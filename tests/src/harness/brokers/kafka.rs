//! Apache Kafka in KRaft mode, each server broker and controller: its program and its properties.

use std::fs;
use std::path::PathBuf;

use super::Broker;
use super::nats::{PASSWORD, USER};

/// Three of them beside everything else.
const HEAP: &str = "-Xmx320m";
const CLUSTER: &str = "c2VndWUtdGVzdC1rYWZrYQ";

/// What `tests/run` installed, below `tools` in the target folder; this program lies deeper in it.
pub fn tools(path: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("this program has a path");
    own.ancestors().map(|folder| folder.join("tools").join(path)).find(|found| found.exists())
}

/// Where the jars are: as `segue demo --kafka-home` takes it, or installed for the tests.
fn libs() -> PathBuf {
    let named = std::env::var_os("SEGUE_KAFKA_HOME").map(|home| PathBuf::from(home).join("libs"));
    let libs = named.or_else(|| tools("kafka/libs"));
    libs.expect("there is no Kafka in TARGET/tools/kafka: run tests/tools/kafka.sh")
}

/// The settings of a client that shows a password.
pub fn login() -> [(&'static str, &'static str); 4] {
    [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", USER),
        ("sasl.password", PASSWORD),
    ]
}

impl Broker {
    /// Writes the properties of a server and starts it on its folder, which is formatted if it is new.
    pub(super) fn launch_kafka(&mut self, at: usize) {
        self.write_kafka(at, PASSWORD);
        let server = &mut self.servers[at];
        let properties = server.folder.join("server.properties").display().to_string();
        let jars = libs().join("*").display().to_string();
        // A folder that is formatted already stays as it is. What ends this thread ends the server: nothing of its size is left behind.
        let script = "java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp \"$1\" kafka.tools.StorageTool format -g -t \"$2\" -c \"$3\" \
                      && exec setpriv --pdeathsig KILL java \"$4\" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp \"$1\" kafka.Kafka \"$3\"";
        let words = ["-c", script, "sh", &jars, CLUSTER, &properties, HEAP].map(str::to_owned);
        server.process.run(PathBuf::from("/bin/sh"), words.to_vec());
        // It need not be formatted when it comes back.
        let again = ["--pdeathsig", "KILL", "java", HEAP, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &jars];
        let again = [&again[..], &["kafka.Kafka", &properties]].concat().into_iter().map(str::to_owned);
        server.process.from_now_on(PathBuf::from("setpriv"), again.collect());
    }

    pub(super) fn write_kafka(&self, at: usize, password: &str) {
        let server = &self.servers[at];
        let protocol = if self.wants.passwords { "SASL_PLAINTEXT" } else { "PLAINTEXT" };
        let (client, inner) = (server.ports.client.address(), server.ports.proxied.address());
        let voters = (1..).zip(&self.servers).map(|(id, server)| format!("{id}@{}", server.ports.second.address()));
        let copies = self.servers.len();
        let quorum = copies.min(2);
        // A proxied client asks at the proxy, and is told to stay there.
        let advertised = self.proxy.as_ref().map_or(inner.clone(), |proxy| proxy.address().to_owned());
        // A killed broker comes back, and a leader is replaced, when its session has ended: nine seconds by default. Sessions of one second
        // end by themselves on a busy machine.
        let mut text = format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
             listeners=CLIENT://{client},PROXIED://{inner},CONTROLLER://{controller}\n\
             advertised.listeners=CLIENT://{client},PROXIED://{advertised}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=CLIENT\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:{protocol},PROXIED:{protocol}\n\
             log.dirs={store}\noffsets.topic.replication.factor={copies}\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor={copies}\ntransaction.state.log.min.isr={quorum}\n\
             group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n\
             log.flush.start.offset.checkpoint.interval.ms=50\nlog.initial.task.delay.ms=50\n\
             broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=200\n",
            id = at + 1,
            voters = voters.collect::<Vec<_>>().join(","),
            controller = server.ports.second.address(),
            store = server.folder.join("store").display(),
        );
        if self.wants.passwords {
            text += &format!(
                "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n\
                 listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
                 username=\"broker\" password=\"b\" user_broker=\"b\" user_{USER}=\"{password}\";\n\
                 listener.name.proxied.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
                 username=\"broker\" password=\"b\" user_broker=\"b\" user_{USER}=\"{password}\";\n"
            );
        }
        fs::create_dir_all(&server.folder).expect("the test folder can be written");
        fs::write(server.folder.join("server.properties"), text).expect("the test folder can be written");
    }
}
