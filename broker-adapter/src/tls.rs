//! TLS 1.3 around ports of ours, by rustls and ring: what a server shows, and whom a client believes.
//!
//! Owns files and handshakes; who must use it is decided by each server's rules and by the scheme of the client's URL.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::shell::Duplex;

/// The one version: both sides are ours.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What a server shows: two PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, and behind it those that lead to who signed it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why TLS cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{path} ({setting}) cannot be used: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        setting: String,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are two readable files that do not fit.
    #[error("certificate and key ({setting}) cannot be used together: {reason}")]
    Pair {
        /// Which setting names them.
        setting: String,
        /// What is wrong.
        reason: String,
    },
    /// The system trusts nobody.
    #[error("this system trusts no authority ({reason}); name who signed the server's certificate ({setting})")]
    NoRoots {
        /// What names them.
        setting: String,
        /// What the system says.
        reason: String,
    },
    /// No certificate can be for it.
    #[error("{0:?} is no name that a certificate can have; write the host as the server's certificate has it")]
    BadName(String),
}

/// Why a handshake of a client failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Something else is spoken there.
    #[error("it does not speak TLS ({0})")]
    NotTls(String),
    /// Its certificate is expired, for another name, or signed by a stranger.
    #[error("its certificate is not believed ({0})")]
    Untrusted(String),
    /// Otherwise, and trying again does not help.
    #[error("TLS failed: {0}")]
    Failed(String),
    /// The connection broke.
    #[error(transparent)]
    Io(io::Error),
}

/// A server's side.
#[derive(Clone)]
pub struct TlsServer(TlsAcceptor);

/// A client's side, for one server.
#[derive(Clone)]
pub struct TlsClient {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsServer {
    /// Reads the files; `setting` is the table that names them.
    ///
    /// # Errors
    /// [`TlsError`] names file and setting.
    pub fn new(files: &TlsFiles, setting: &str) -> Result<TlsServer, TlsError> {
        let chain = certificates(&files.certificate, &format!("{setting}.certificate"))?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::File {
            path: files.key.clone(),
            setting: format!("{setting}.key"),
            reason: said(&error),
        })?;
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| TlsError::Pair { setting: setting.to_owned(), reason: error.to_string() })?;
        Ok(TlsServer(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake; who calls limits its time.
    ///
    /// # Errors
    /// `UnexpectedEof` if the client said nothing, else what was wrong.
    pub async fn accept(&self, connection: Box<dyn Duplex>) -> io::Result<Box<dyn Duplex>> {
        match self.0.accept(connection).await {
            Ok(connection) => Ok(Box::new(connection)),
            Err(error) if matches!(of_rustls(&error), Some(rustls::Error::InvalidMessage(_))) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"))
            }
            Err(error) => Err(error),
        }
    }
}

impl TlsClient {
    /// For the server at `HOST:PORT`, whose certificate must be for HOST: believes who is named in `ca` or, if no file is, whom the
    /// system believes. `setting` is what names `ca`.
    ///
    /// # Errors
    /// [`TlsError`] names file and setting.
    pub fn new(address: &str, ca: Option<&Path>, setting: &str) -> Result<TlsClient, TlsError> {
        let roots = match ca {
            Some(path) => named_roots(path, setting)?,
            None => system_roots(setting)?,
        };
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)
            .expect("ring knows TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsClient { connector: TlsConnector::from(Arc::new(config)), name: server_name(address)? })
    }

    /// The handshake; who calls limits its time.
    ///
    /// # Errors
    /// [`HandshakeError`] says whether trying again helps.
    pub async fn connect(&self, connection: Box<dyn Duplex>) -> Result<Box<dyn Duplex>, HandshakeError> {
        match self.connector.connect(self.name.clone(), connection).await {
            Ok(connection) => Ok(Box::new(connection)),
            Err(error) => Err(match of_rustls(&error) {
                None => HandshakeError::Io(error),
                Some(error @ rustls::Error::InvalidMessage(_)) => HandshakeError::NotTls(error.to_string()),
                Some(error @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) => {
                    HandshakeError::Untrusted(error.to_string())
                }
                Some(error) => HandshakeError::Failed(error.to_string()),
            }),
        }
    }
}

fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whose certificate it must be: the host of `HOST:PORT`.
fn server_name(address: &str) -> Result<ServerName<'static>, TlsError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadName(host.to_owned()))
}

fn named_roots(path: &Path, setting: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, setting)? {
        roots.add(certificate).map_err(|error| TlsError::File {
            path: path.to_owned(),
            setting: setting.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn system_roots(setting: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let reason = found.errors.first().map_or("it has no list of them".to_owned(), ToString::to_string);
    Err(TlsError::NoRoots { reason, setting: setting.to_owned() })
}

fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason| TlsError::File { path: path.to_owned(), setting: setting.to_owned(), reason };
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if all.is_empty() => Err(failed("it holds no certificate in PEM".to_owned())),
        Ok(all) => Ok(all),
        Err(error) => Err(failed(said(&error))),
    }
}

fn said(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => "it holds nothing of the kind in PEM".to_owned(),
        // Others may repeat what stands in the file.
        _ => "it is no PEM".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_a_certificate_must_have_is_the_host() {
        for (address, name) in [("edge-a:7070", "edge-a"), ("10.0.0.1:7070", "10.0.0.1"), ("[::1]:7070", "::1")] {
            assert_eq!(server_name(address).unwrap().to_str(), name);
        }
        assert!(server_name("a_b c:1").unwrap_err().to_string().contains("no name that a certificate"));
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_setting() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let files = TlsFiles { certificate: certificate.clone(), key: key.clone() };
        let refused = || TlsServer::new(&files, "host.tls").map(|_| ()).unwrap_err().to_string();
        assert!(refused().contains("cert.pem (host.tls.certificate) cannot be used"), "{}", refused());
        std::fs::write(&certificate, "nothing").unwrap();
        assert!(refused().contains("holds no"), "{}", refused());
        let (ours, other) = (rcgen::generate_simple_self_signed(vec![]).unwrap(), rcgen::KeyPair::generate().unwrap());
        std::fs::write(&certificate, ours.cert.pem()).unwrap();
        std::fs::write(&key, "hunter2").unwrap();
        assert!(refused().contains("key.pem (host.tls.key)") && !refused().contains("hunter2"), "{}", refused());
        std::fs::write(&key, other.serialize_pem()).unwrap();
        assert!(refused().contains("(host.tls) cannot be used together"), "{}", refused());
        std::fs::write(&key, ours.key_pair.serialize_pem()).unwrap();
        TlsServer::new(&files, "host.tls").map(|_| ()).unwrap();
        assert!(
            TlsClient::new("a:1", Some(&key), "[segue] ca")
                .map(|_| ())
                .unwrap_err()
                .to_string()
                .contains("([segue] ca)")
        );
    }
}
