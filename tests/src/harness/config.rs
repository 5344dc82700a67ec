//! The configuration files of the processes, as an operator would write them.

use std::fmt::Write;
use std::path::Path;

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
    /// How long a client waits for a reply before it gets 504, if not the default.
    pub reply_timeout_ms: Option<u64>,
    /// How long a delivery may take before the instance's state is unknown, if not the default.
    pub delivery_timeout_ms: Option<u64>,
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
            reply_timeout_ms: None,
            delivery_timeout_ms: None,
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

    pub(super) fn sidecar_toml(&self, broker: &str, admin: &str, listen: &str) -> String {
        let program = binary("segue-ledger");
        let Node { name, service, create, .. } = self;
        let mut text = format!(
            "node = {name:?}\nclass = \"edge\"\nbroker = {broker:?}\nadmin = {admin:?}\n\n\
             [[service]]\nname = {service:?}\nlisten = {listen:?}\ncreate = {create}\n"
        );
        if !self.ingress_only {
            text += &format!(
                "run = [{program:?}, \"--listen\", \"{{address}}\"]\nready = \"/ready\"\n\
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
        text
    }
}

pub(super) fn broker_toml(listen: &str, path: &Path) -> String {
    format!("listen = {listen:?}\npath = {path:?}\n")
}

pub(super) fn migrator_toml(listen: &str, broker: &str) -> String {
    format!("listen = {listen:?}\nbroker = {broker:?}\n")
}
