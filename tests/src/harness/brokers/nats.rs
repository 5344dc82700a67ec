//! `nats-server`: its program and its configuration file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::Broker;
use super::kafka::tools;

/// Who the processes are, where users have passwords.
pub const USER: &str = "segue";
/// By this they show it.
pub const PASSWORD: &str = "open-sesame";

/// `nats-server -c FOLDER/server.conf`.
pub fn command(folder: &Path) -> (PathBuf, Vec<String>) {
    let installed = tools("bin/nats-server");
    // Else whatever is on PATH.
    let program = installed.unwrap_or_else(|| PathBuf::from("nats-server"));
    (program, vec!["-c".to_owned(), folder.join("server.conf").display().to_string()])
}

impl Broker {
    /// Writes the configuration of a server; the users' password is `password`.
    pub(super) fn write_nats(&self, at: usize, password: &str) {
        let server = &self.servers[at];
        let (client, monitoring) = (server.ports.client.address(), server.ports.second.address());
        let store = server.folder.join("store");
        // A reader that takes nothing for so long is cut off, and the log says so.
        let mut text = format!(
            "server_name: n{at}\nlisten: {client}\nhttp: {monitoring}\nwrite_deadline: \"2s\"\n\
             jetstream {{\n store_dir: {store:?}\n sync_interval: always\n}}\n"
        );
        if self.wants.passwords {
            writeln!(text, "authorization {{ users: [{{ user: {USER}, password: {password:?} }}] }}")
                .expect("writing to memory does not fail");
        }
        if self.servers.len() > 1 {
            let routes = self.servers.iter().map(|server| format!("nats://{}", server.ports.third.address()));
            let routes: Vec<String> = routes.collect();
            let listen = server.ports.third.address();
            writeln!(text, "cluster {{ name: segue, listen: {listen}, routes: [{}] }}", routes.join(", "))
                .expect("writing to memory does not fail");
        }
        fs::create_dir_all(&server.folder).expect("the test folder can be written");
        fs::write(server.folder.join("server.conf"), text).expect("the test folder can be written");
    }
}
