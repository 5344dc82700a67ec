//! TLS 1.3 around `segue://`, by rustls and ring: what a server shows, and whom a client believes.
//!
//! Owns files and errors of it; who must use it is decided in `door.rs` (server) and by the URL's scheme (client).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio_rustls::{TlsAcceptor, TlsConnector};

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
    #[error("this system trusts no authority ({reason}); name who signed the broker's certificate as [segue] ca")]
    NoRoots {
        /// What the system says.
        reason: String,
    },
    /// No certificate can be for it.
    #[error("{0:?} is no name that a certificate can have; write the host as the broker's certificate has it")]
    BadName(String),
}

/// A server's side; `setting` is the table that names the files.
///
/// # Errors
/// [`TlsError`] names file and setting.
pub fn acceptor(files: &TlsFiles, setting: &str) -> Result<TlsAcceptor, TlsError> {
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
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A client's side: believes who is named in `ca`, or, if no file is, whom the system believes.
///
/// # Errors
/// [`TlsError`] names file and setting.
pub fn connector(ca: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let roots = match ca {
        Some(path) => named_roots(path)?,
        None => system_roots()?,
    };
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)
        .expect("ring knows TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Whose certificate it must be: the host of `HOST:PORT`.
///
/// # Errors
/// [`TlsError::BadName`].
pub fn server_name(address: &str) -> Result<ServerName<'static>, TlsError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadName(host.to_owned()))
}

/// What a failed handshake means to the client, if trying again does not help.
#[must_use]
pub fn hopeless(error: &io::Error, address: &str) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidMessage(_) => format!(
            "it does not speak TLS ({error}): give the broker tls = {{ certificate, key }}, or write segue://{address}"
        ),
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => format!(
            "its certificate is not believed ({error}): name who signed it as [segue] ca, and the host as the certificate has it"
        ),
        other => format!("TLS failed: {other}"),
    })
}

/// Whether a handshake failed because the other side said something else.
#[must_use]
pub fn is_no_tls(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidMessage(_)))
}

fn named_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "[segue] ca")? {
        roots.add(certificate).map_err(|error| TlsError::File {
            path: path.to_owned(),
            setting: "[segue] ca".to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let reason = found.errors.first().map_or("it has no list of them".to_owned(), ToString::to_string);
    Err(TlsError::NoRoots { reason })
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
        let refused = || acceptor(&files, "host.tls").map(|_| ()).unwrap_err().to_string();
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
        acceptor(&files, "host.tls").map(|_| ()).unwrap();
        assert!(connector(Some(&key)).map(|_| ()).unwrap_err().to_string().contains("([segue] ca)"));
    }
}
