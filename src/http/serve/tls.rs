//! The server's TLS certificate, with hot reload.
//!
//! The server reads the files at start, checks them every few seconds and on request, and replaces the certificate
//! without closing connections. It keeps the old certificate if the new one is invalid.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::rsa_bits;
use crate::reload::Reload;

/// Interval between checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The reason why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not contain what it should.
    #[error("{} contains no {what} in PEM format", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What the file should contain.
        what: &'static str,
        /// The cause.
        source: NotPem,
    },
    /// The RSA key is too short.
    #[error("the RSA key in {} has {bits} bits; at least {} are needed", .path.display(), rsa_bits::MIN_BITS)]
    WeakKey {
        /// The key's file.
        path: PathBuf,
        /// The key's length in bits.
        bits: usize,
    },
    /// The certificate and the key do not match, or are of an unsupported kind.
    #[error("the certificate in {} and the key in {} cannot be used together", .certificate.display(), .key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
}

/// The reason why a file is not valid PEM.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotPem(String);

impl NotPem {
    /// Describes `error`; `section` is the label after `BEGIN`.
    fn new(section: &str, error: &pem::Error) -> Self {
        Self(match error {
            pem::Error::NoItemsFound => format!("it has no line `-----BEGIN {section}-----`"),
            pem::Error::MissingSectionEnd { end_marker } => {
                format!("it has no line `-----END {}-----`", String::from_utf8_lossy(end_marker))
            }
            pem::Error::IllegalSectionStart { line } => {
                format!("the line `{}` is malformed", String::from_utf8_lossy(line).trim_end())
            }
            other => other.to_string(),
        })
    }
}

/// The current certificate and key; clones share them.
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
    /// Reads a certificate chain and its key from two PEM files.
    ///
    /// # Errors
    /// [`Error`] if a file is unreadable, malformed or unusable.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        // An error means that a provider is already installed, which works as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let current = RwLock::new(Current::of(&Files::read(certificate, key)?, certificate, key)?);
        Ok(Self(Arc::new(Inner { certificate: certificate.to_owned(), key: key.to_owned(), current })))
    }

    /// Returns an acceptor with the current certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.current.read().config))
    }

    /// Reloads the certificate when its files change, or when `reload` requests it; never returns.
    ///
    /// Existing connections keep their certificate.
    pub async fn follow(&self, reload: &Reload) {
        let mut requests = reload.requests();
        let mut last_refusal = None;
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => false,
                () = requests.next() => true,
            };
            let tls = self.clone();
            let Ok(seen) = tokio::task::spawn_blocking(move || tls.check_files()).await else { continue };
            let certificate = self.0.certificate.display();
            match seen {
                Ok(changed) => {
                    last_refusal = None;
                    if changed {
                        info!(target: "pm::http", %certificate, "loaded a new certificate");
                    } else if asked {
                        info!(target: "pm::http", %certificate, "reloaded the certificate; it is unchanged");
                    }
                }
                Err(error) => {
                    // Once per distinct error, not at each check.
                    let refusal = error.to_string();
                    if asked || last_refusal.as_ref() != Some(&refusal) {
                        let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                        warn!(target: "pm::http", %error, reason, "cannot use the new certificate; keeping the old");
                        last_refusal = Some(refusal);
                    }
                }
            }
        }
    }

    /// Loads the files if they have changed; returns whether they have.
    fn check_files(&self) -> Result<bool, Error> {
        let Inner { certificate, key, current } = &*self.0;
        let files = Files::read(certificate, key)?;
        if current.read().digest == files.digest() {
            return Ok(false);
        }
        let new = Current::of(&files, certificate, key)?;
        *current.write() = new;
        Ok(true)
    }
}

/// The contents of both files.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source });
        Ok(Self { certificate: read(certificate)?, key: read(key)? })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(Sha256::digest(&self.certificate)).chain_update(&self.key).finalize().into()
    }
}

impl Current {
    fn of(files: &Files, certificate: &Path, key: &Path) -> Result<Self, Error> {
        let empty = |path: &Path, what, section, error: &pem::Error| Error::Empty {
            path: path.to_owned(),
            what,
            source: NotPem::new(section, error),
        };
        let chain = CertificateDer::pem_slice_iter(&files.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
        let chain = chain.map_err(|error| empty(certificate, "certificate", "CERTIFICATE", &error))?;
        let private = PrivateKeyDer::from_pem_slice(&files.key);
        let private = private.map_err(|error| empty(key, "private key", "PRIVATE KEY", &error))?;
        if let Some(bits) = rsa_bits::of(&private).filter(|bits| *bits < rsa_bits::MIN_BITS) {
            return Err(Error::WeakKey { path: key.to_owned(), bits });
        }
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
    fn a_certificate_with_the_wrong_key_is_refused() {
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

    #[test]
    fn a_short_rsa_key_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let certificate = write(directory.path(), "cert.pem", &made.cert.pem());
        for pem in [include_str!("../tests/keys/rsa_1024.pem"), include_str!("../tests/keys/rsa_1024_pkcs1.pem")] {
            let key = write(directory.path(), "key.pem", pem);
            let refused = Tls::load(&certificate, &key).expect_err("a short key").to_string();
            assert!(refused.ends_with("key.pem has 1024 bits; at least 2048 are needed"), "{refused}");
        }
        let key = write(directory.path(), "key.pem", include_str!("../tests/keys/rsa_2048.pem"));
        assert!(matches!(Tls::load(&certificate, &key), Err(Error::Unusable { .. })), "it is another certificate's");
    }

    #[test]
    fn an_invalid_file_keeps_the_old_certificate_in_use() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (one, other) = (made(), made());
        let certificate = write(directory.path(), "cert.pem", &one.cert.pem());
        let key = write(directory.path(), "key.pem", &one.signing_key.serialize_pem());
        let tls = Tls::load(&certificate, &key).expect("a certificate");
        let shown = || Arc::as_ptr(tls.acceptor().config());
        let first = shown();
        assert!(matches!(tls.check_files(), Ok(false)));
        write(directory.path(), "cert.pem", &other.cert.pem());
        assert!(matches!(tls.check_files(), Err(Error::Unusable { .. })));
        for (half, reason) in [
            ("half a cert", "it has no line `-----BEGIN CERTIFICATE-----`"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "it has no line `-----END CERTIFICATE-----`"),
        ] {
            write(directory.path(), "cert.pem", half);
            let Err(Error::Empty { source, .. }) = tls.check_files() else { panic!("{half} is no certificate") };
            assert_eq!(source.to_string(), reason);
        }
        assert_eq!(shown(), first);
        write(directory.path(), "cert.pem", &other.cert.pem());
        write(directory.path(), "key.pem", &other.signing_key.serialize_pem());
        assert!(matches!(tls.check_files(), Ok(true)));
        assert_ne!(shown(), first);
    }
}
