//! The token and the certificates of an embedded broker that is guarded, as an operator would make them.

use std::fs;
use std::path::{Path, PathBuf};

use broker_adapter::embedded::options::SegueOptions;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

/// A token, as tests look for it where it must not be.
pub const TOKEN: &str = "swordfish-swordfish-swordfish";

/// Their files in the folder of a test.
pub struct Guards(PathBuf);

impl Guards {
    /// Makes them.
    pub fn create(folder: &Path) -> Guards {
        let guards = Guards(folder.to_owned());
        let (root_key, key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let mut params = CertificateParams::new(Vec::new()).expect("no names are no bad names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&root_key).expect("it signs itself");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a good name");
        let certificate = params.signed_by(&key, &root, &root_key).expect("it signs");
        guards.write("ca.pem", &root.pem());
        guards.write("broker.pem", &certificate.pem());
        guards.write("broker.key", &key.serialize_pem());
        guards.write("broker.tokens", TOKEN);
        guards.write("client.token", TOKEN);
        guards
    }

    /// Changes one of them.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), format!("{text}\n")).expect("the test folder can be written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What the broker is told.
    pub fn server_toml(&self) -> String {
        let [tokens, certificate, key] = ["broker.tokens", "broker.pem", "broker.key"].map(|name| self.path(name));
        format!("token_file = {tokens:?}\ntls = {{ certificate = {certificate:?}, key = {key:?} }}\n")
    }

    /// What its clients are told, at the end of a file.
    pub fn client_toml(&self) -> String {
        format!("[segue]\ntoken_file = {:?}\nca = {:?}\n", self.path("client.token"), self.path("ca.pem"))
    }

    /// The same for the test's own connections.
    pub fn options(&self) -> SegueOptions {
        SegueOptions { token_file: Some(self.path("client.token")), ca: Some(self.path("ca.pem")) }
    }
}
