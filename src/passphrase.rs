//! Encrypts small secrets with a passphrase, as [age](https://age-encryption.org/v1) files that `age -d` can decrypt.

use std::iter;

use age::{
    DecryptError, Encryptor,
    scrypt::{Identity, Recipient},
    secrecy::SecretString,
};

use crate::secret::Secret;

/// Work factor for encryption; key derivation takes 2^17 × 1 KiB = 128 MiB.
const WRITTEN_LOG_N: u8 = 17;
/// Maximum work factor for decryption; higher ones would take gigabytes.
const MAX_LOG_N: u8 = 20;

/// A passphrase for encrypting secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passphrase(Secret<String>);

/// Why decryption failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file is no age file, or was not encrypted with a passphrase.
    #[error("it is not an age file encrypted with a passphrase")]
    Malformed,
    /// The file was encrypted with another passphrase.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The file was modified or truncated.
    #[error("it is damaged")]
    Damaged,
    /// Key derivation would need more than 1 GiB of memory.
    #[error("decrypting it needs more than 1 GiB of memory")]
    TooExpensive,
}

impl Passphrase {
    /// Minimum characters of a passphrase for encryption. Files of earlier versions may have a shorter one.
    pub const MIN_CHARS: usize = 12;

    /// Creates a passphrase of at least one character.
    ///
    /// # Errors
    /// A message if it is empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".into()) } else { Ok(Self(Secret::new(text.to_owned()))) }
    }

    /// Returns whether the passphrase is long enough for encryption.
    pub fn is_long_enough(&self) -> bool {
        self.0.reveal().chars().count() >= Self::MIN_CHARS
    }

    /// Encrypts `plain`; takes about one second and 128 MiB of memory.
    ///
    /// # Errors
    /// If the system has no source of random bytes.
    pub fn encrypt(&self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        self.encrypt_with(plain, WRITTEN_LOG_N)
    }

    fn encrypt_with(&self, plain: &[u8], log_n: u8) -> std::io::Result<Vec<u8>> {
        let mut recipient = Recipient::new(self.secret());
        recipient.set_work_factor(log_n);
        let encryptor = Encryptor::with_recipients(iter::once(&recipient as _)).map_err(std::io::Error::other)?;
        let mut file = Vec::with_capacity(plain.len() + 512);
        let mut writer = encryptor.wrap_output(&mut file)?;
        std::io::Write::write_all(&mut writer, plain)?;
        writer.finish()?;
        Ok(file)
    }

    /// Decrypts a file of [`encrypt`](Self::encrypt) or `age -p`.
    pub fn decrypt(&self, file: &[u8]) -> Result<Vec<u8>, Error> {
        let mut identity = Identity::new(self.secret());
        identity.set_max_work_factor(MAX_LOG_N);
        age::decrypt(&identity, file).map_err(|error| match error {
            DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => Error::WrongPassphrase,
            DecryptError::ExcessiveWork { .. } => Error::TooExpensive,
            DecryptError::InvalidMac | DecryptError::Io(_) => Error::Damaged,
            _ => Error::Malformed,
        })
    }

    fn secret(&self) -> SecretString {
        SecretString::from(self.0.reveal().as_str())
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

    use super::*;

    const CHUNK_BYTES: usize = 64 * 1024;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::parse(text).expect("a passphrase")
    }

    #[test]
    fn a_file_is_decrypted_only_with_its_own_passphrase() {
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..size).map(|place| place as u8).collect();
            let file = passphrase("correct horse").encrypt_with(&plain, 4).expect("a file");
            assert!(passphrase("correct horse").decrypt(&file) == Ok(plain), "{size} bytes");
            assert_eq!(passphrase("correct house").decrypt(&file), Err(Error::WrongPassphrase));
        }
    }

    #[test]
    fn every_changed_byte_and_every_truncation_is_an_error() {
        let file = passphrase("p").encrypt_with(b"whsec_secret", 4).expect("a file");
        for place in 0..file.len() {
            let mut changed = file.clone();
            changed[place] ^= 1;
            assert!(passphrase("p").decrypt(&changed).is_err(), "byte {place}");
            assert!(passphrase("p").decrypt(&file[..place]).is_err(), "the first {place} bytes");
        }
    }

    #[test]
    fn a_file_with_an_excessive_work_factor_is_refused() {
        let (salt, wrapped) = (STANDARD_NO_PAD.encode([0; 16]), STANDARD_NO_PAD.encode([0; 32]));
        let file = format!("age-encryption.org/v1\n-> scrypt {salt} 30\n{wrapped}\n--- {wrapped}\n");
        let file = [file.as_bytes(), &[0; 64]].concat();
        assert_eq!(passphrase("p").decrypt(&file), Err(Error::TooExpensive));
    }

    #[test]
    fn a_file_written_by_age_is_decrypted() {
        // printf whsec_from_age | age -p, version 1.1.1, with the passphrase `correct horse`.
        const FILE: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCA1ZG02RStpSm5QbTg1c2RsTmcrc3FRIDE4Ck1SMlZOVzJmRnJTcVFIcG\
            FpT0RQYXljbmJPeXFDcFhUdW5HUmFmNE1sSmcKLS0tIC9rNzBaeXJaWXBMVTBDS2ZEN0VsZDhuSjhLSnBETnQraXBKTG9yU1FTd1EKxMw2+U5jDb9KB3tq\
            A+XBEPRpcD+YnkFmT1JvENiVRIahtP/Q3Fu6UzfnakAbag";
        let file = STANDARD_NO_PAD.decode(FILE).expect("base64");
        assert_eq!(passphrase("correct horse").decrypt(&file).as_deref(), Ok(&b"whsec_from_age"[..]));
        assert_eq!(passphrase("correct house").decrypt(&file), Err(Error::WrongPassphrase));
    }

    #[test]
    fn debug_does_not_show_the_passphrase() {
        assert_eq!(format!("{:?}", passphrase("hunter2")), "Passphrase(***)");
        assert!(Passphrase::parse("").is_err());
    }

    #[test]
    fn a_passphrase_for_encryption_has_12_characters() {
        assert!(!passphrase("hunter2").is_long_enough() && !passphrase("äöüäöüäöüäö").is_long_enough());
        assert!(passphrase("correct hors").is_long_enough());
    }
}
