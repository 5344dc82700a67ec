//! The configuration files of the processes, as an operator would write them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::process::binary;

/// The service that the tests move.
pub const SERVICE: &str = "ledger";

/// What a node is to be like.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it begins the service's log.
    pub create: bool,
    /// The service it can run.
    pub service: String,
    /// The faults of its service, as in [`crate::ledger::Faults::parse`].
    pub faults: String,
    /// Whether only the first instance of its service has them.
    pub faults_once: bool,
    /// Whether it is only an ingress of the service, without a replica.
    pub ingress_only: bool,
    /// A sample below `configs/` that it runs instead of the ledger, and more arguments for its program.
    pub sample: Option<(&'static str, Vec<&'static str>)>,
    /// Instead of running it: where the test itself runs the service, and more lines of its configuration.
    pub attached: Option<(String, String)>,
    /// A configuration file of `configs/` that is used as it is, but for names and ports.
    pub described_by: Option<String>,
    /// How long a client waits for a reply before it gets 504, if not the default.
    pub reply_timeout_ms: Option<u64>,
    /// How long a delivery may take before the instance's state is unknown, if not the default.
    pub delivery_timeout_ms: Option<u64>,
    /// The folder of checkpoints, if the broker does not keep them; then an owner takes one every second.
    pub checkpoints: Option<PathBuf>,
    /// How often an owner takes a checkpoint by itself, if not as by default.
    pub checkpoint_every_s: Option<u32>,
    /// Above how many records messages are refused, if not the default; then the owner makes room, and else takes no checkpoint.
    pub high_mark_records: Option<u64>,
}

impl Node {
    /// A node that can run [`SERVICE`] and did not begin it.
    #[must_use]
    pub fn named(name: &str) -> Node {
        Node {
            name: name.to_owned(),
            create: false,
            service: SERVICE.to_owned(),
            faults: String::new(),
            faults_once: false,
            ingress_only: false,
            attached: None,
            described_by: None,
            sample: None,
            reply_timeout_ms: None,
            delivery_timeout_ms: None,
            checkpoints: None,
            checkpoint_every_s: None,
            high_mark_records: None,
        }
    }

    /// A node that is only an ingress of [`SERVICE`].
    #[must_use]
    pub fn ingress(name: &str) -> Node {
        Node { ingress_only: true, ..Node::named(name) }
    }

    /// The node that begins the service's log.
    #[must_use]
    pub fn creating(name: &str) -> Node {
        Node { create: true, ..Node::named(name) }
    }

    /// A node that runs a sample.
    #[must_use]
    pub fn with_sample(self, file: &'static str, arguments: &[&'static str]) -> Node {
        Node { sample: Some((file, arguments.to_vec())), ..self }
    }

    /// The sample as it is, but for this test's name, addresses and paths.
    fn sample_toml(&self, file: &str, arguments: &[&str], places: [(&str, &str); 3]) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let text = std::fs::read_to_string(folder.join(file)).expect("the sample can be read");
        let mut own = places.map(|(key, value)| (key, format!("{value:?}"))).to_vec();
        own.extend([("node", format!("{:?}", self.name)), ("create", self.create.to_string())]);
        let more: String = arguments.iter().map(|argument| format!(", {argument:?}")).collect();
        let line = |line: &str| {
            let key = line.split_once(" = ").map(|(key, _)| key);
            if let Some((key, value)) = own.iter().find(|(own, _)| key == Some(own)) {
                return format!("{key} = {value}\n");
            }
            let line = line.replace("\"configs/", &format!("\"{}/", folder.display()));
            line.replace("\"{address}\"", &format!("\"{{address}}\"{more}")) + "\n"
        };
        text.lines().map(line).collect()
    }

    /// A node that a file of `configs/` describes.
    #[must_use]
    pub fn sample(name: &str, create: bool, file: &str) -> Node {
        Node { create, described_by: Some(file.to_owned()), ..Node::named(name) }
    }

    /// A node whose service listens at an address already; more lines of its configuration may follow.
    #[must_use]
    pub fn attached(name: &str, create: bool, address: &str, more: &str) -> Node {
        Node { create, attached: Some((address.to_owned(), more.to_owned())), ..Node::named(name) }
    }

    /// `segue sidecar --config FILE` and what lies above that file.
    pub(super) fn arguments(&self, file: &Path, broker: &str, admin: &str, listen: &str) -> Vec<String> {
        let mut arguments = vec!["sidecar".to_owned(), "--config".to_owned()];
        let Some(sample) = &self.described_by else {
            arguments.push(file.display().to_string());
            return arguments;
        };
        arguments.push(sample.clone());
        let listen = format!("service.0.listen={listen:?}");
        let create = format!("service.0.create={}", self.create);
        let above = ["--node", &self.name, "--broker", broker, "--admin", admin, "--set", &listen, "--set", &create];
        arguments.extend(above.into_iter().map(str::to_owned));
        arguments
    }

    /// `more` stands at the end.
    pub(super) fn sidecar_toml(&self, broker: &str, admin: &str, listen: &str, more: &str) -> String {
        if let Some((file, arguments)) = &self.sample {
            return self.sample_toml(file, arguments, [("broker", broker), ("admin", admin), ("listen", listen)]);
        }
        let program = binary("segue-ledger");
        let Node { name, service, create, .. } = self;
        let run = match &self.attached {
            Some((address, more)) => format!("attach = \"http://{address}\"\n{more}\n"),
            None => format!("run = [{program:?}, \"--listen\", \"{{address}}\"]\n"),
        };
        let mut text = format!(
            "node = {name:?}\nclass = \"edge\"\nbroker = {broker:?}\nadmin = {admin:?}\n{}\n\
             [[service]]\nname = {service:?}\nlisten = {listen:?}\ncreate = {create}\n",
            checkpoints_toml(self.checkpoints.as_deref())
        );
        if !self.ingress_only {
            text += &format!(
                "{run}ready = \"/ready\"\n\
                 state = {{ kind = \"http\", path = \"/segue/state\" }}\n"
            );
        }
        if !self.ingress_only && !create {
            // The first owner delivers one by one, the others in batches: they must agree.
            text.push_str("batch = \"/segue/batch\"\n");
        }
        let limits = [("reply_timeout_ms", self.reply_timeout_ms), ("delivery_timeout_ms", self.delivery_timeout_ms)];
        for (key, ms) in limits {
            if let Some(ms) = ms {
                writeln!(text, "{key} = {ms}").expect("writing to memory does not fail");
            }
        }
        if let Some(records) = self.high_mark_records {
            writeln!(text, "log_high_mark_records = {records}").expect("writing to memory does not fail");
            text.push_str("[service.checkpoint]\nevery_s = 0\nevery_records = 0\nevery_mb = 0\n");
        } else if let Some(every_s) = self.checkpoint_every_s.or(self.checkpoints.is_some().then_some(1)) {
            writeln!(text, "[service.checkpoint]\nevery_s = {every_s}").expect("writing to memory does not fail");
        }
        text + more
    }
}

pub(super) fn broker_toml(listen: &str, path: &Path, admin: &str) -> String {
    format!("listen = {listen:?}\npath = {path:?}\nadmin = {admin:?}\n")
}

/// `more` stands at the end.
pub(super) fn migrator_toml(listen: &str, broker: &str, checkpoints: Option<&Path>, more: &str) -> String {
    format!("listen = {listen:?}\nbroker = {broker:?}\n{}{more}", checkpoints_toml(checkpoints))
}

fn checkpoints_toml(folder: Option<&Path>) -> String {
    folder.map_or(String::new(), |folder| format!("checkpoints = \"file://{}\"\n", folder.display()))
}
