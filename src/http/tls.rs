//! The server's certificate: read at start, looked at again every few seconds, and replaced without anybody noticing. A
//! new one that is broken leaves the old one in place.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no {what} in PEM", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The two do not go together, or are of a kind that is not known.
    #[error("the certificate in {} and the key in {} cannot be used together", .certificate.display(), .key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate with its key, as its files have it at the moment; clones share it.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    digest: [u8; 32],
}

impl Tls {
    /// Reads a chain of certificates and its key from two files in PEM.
    ///
    /// # Errors
    /// [`Error`] by what is wrong with the files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        // An error means that a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let current = RwLock::new(Current::of(&Files::read(certificate, key)?, certificate, key)?);
        Ok(Self(Arc::new(Inner { certificate: certificate.to_owned(), key: key.to_owned(), current })))
    }

    /// Shakes hands with the certificate of this moment.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner).config))
    }

    /// Follows the files for ever. Connections that are there keep what they have agreed on.
    pub async fn follow(&self) {
        let Inner { certificate, key, current } = &*self.0;
        let mut refused = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (certificate, key) = (certificate.clone(), key.clone());
            let read = tokio::task::spawn_blocking({
                let (certificate, key) = (certificate.clone(), key.clone());
                move || Files::read(&certificate, &key)
            });
            let Ok(read) = read.await else { continue };
            let digest = read.as_ref().ok().map(Files::digest);
            let known = current.read().unwrap_or_else(PoisonError::into_inner).digest;
            if digest == Some(known) {
                refused = None;
                continue;
            }
            match read.and_then(|files| Current::of(&files, &certificate, &key)) {
                Ok(new) => {
                    *current.write().unwrap_or_else(PoisonError::into_inner) = new;
                    refused = None;
                    info!(target: "pm::http", certificate = %certificate.display(), "a new certificate is in use");
                }
                // Once for each state of the files, not each time they are looked at.
                Err(error) if refused != Some(digest) => {
                    let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    warn!(target: "pm::http", %error, reason, "the new certificate is not used; the old one stays");
                    refused = Some(digest);
                }
                Err(_) => {}
            }
        }
    }
}

/// The bytes of both files.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
        };
        Ok(Self { certificate: read(certificate)?, key: read(key)? })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(Sha256::digest(&self.certificate)).chain_update(&self.key).finalize().into()
    }
}

impl Current {
    fn of(files: &Files, certificate: &Path, key: &Path) -> Result<Self, Error> {
        let empty = |path: &Path, what| Error::Empty { path: path.to_owned(), what };
        let chain = CertificateDer::pem_slice_iter(&files.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| empty(certificate, "certificate"))?;
        let private = PrivateKeyDer::from_pem_slice(&files.key).map_err(|_| empty(key, "private key"))?;
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let config = ServerConfig::builder_with_protocol_versions(&versions).with_no_client_auth();
        let mut config = config.with_single_cert(chain, private).map_err(|source| Error::Unusable {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), digest: files.digest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, bytes: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let certificate = write(directory.path(), "cert.pem", &one.cert.pem());
        let key = write(directory.path(), "key.pem", &one.signing_key.serialize_pem());
        assert!(Tls::load(&certificate, &key).is_ok());
        let wrong = write(directory.path(), "wrong.pem", &other.signing_key.serialize_pem());
        assert!(matches!(Tls::load(&certificate, &wrong), Err(Error::Unusable { .. })));
        assert!(matches!(Tls::load(&key, &key), Err(Error::Empty { what: "certificate", .. })));
        assert!(matches!(Tls::load(&certificate, &certificate), Err(Error::Empty { what: "private key", .. })));
        assert!(matches!(Tls::load(&directory.path().join("none"), &key), Err(Error::Unreadable { .. })));
    }
}
