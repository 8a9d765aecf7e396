//! Encrypts small secrets by a passphrase, as a file of the [age format, version 1](https://age-encryption.org/v1), so that
//! `age -d` opens it as well. Only the recipient `scrypt` is written and read.
//!
//! The primitives are those of RustCrypto. The crate `age` itself would bring more than 40 others along, most of them for
//! translated messages and for kinds of keys that are not used here.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, aead::Aead as _};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

const VERSION_LINE: &str = "age-encryption.org/v1";
const SCRYPT_LABEL: &[u8] = b"age-encryption.org/v1/scrypt";
/// Memory of one derivation is 2^17 × 1 KiB = 128 MiB.
const WRITTEN_LOG_N: u8 = 17;
/// A file that asks for more is refused: it would take gigabytes.
const MAX_LOG_N: u8 = 20;
const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 16;

/// What opens encrypted secrets. Nobody sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(String);

/// Why a file was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no file of this format, or not one that was encrypted by a passphrase.
    #[error("it is not an age file that a passphrase opens")]
    Malformed,
    /// The passphrase is another one.
    #[error("the passphrase does not open it")]
    WrongPassphrase,
    /// It was changed after it was written.
    #[error("it is damaged")]
    Damaged,
    /// The key cannot be derived with the parameters of the file.
    #[error("it asks for more memory than is spent on it")]
    TooExpensive,
}

impl Passphrase {
    /// Takes a passphrase of at least one character.
    ///
    /// # Errors
    /// A sentence if it is empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".into()) } else { Ok(Self(text.to_owned())) }
    }

    fn derive(&self, salt: &[u8], log_n: u8) -> Result<[u8; 32], Error> {
        let params = scrypt::Params::new(log_n, 8, 1, 32).map_err(|_| Error::Malformed)?;
        let mut key = [0; 32];
        scrypt::scrypt(self.0.as_bytes(), &[SCRYPT_LABEL, salt].concat(), &params, &mut key)
            .map_err(|_| Error::Malformed)?;
        Ok(key)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(***)")
    }
}

/// Encrypts `plain`; takes about a second of one core and 128 MiB of memory.
pub fn encrypt(plain: &[u8], passphrase: &Passphrase) -> Vec<u8> {
    encrypt_with(plain, passphrase, WRITTEN_LOG_N)
}

fn encrypt_with(plain: &[u8], passphrase: &Passphrase, log_n: u8) -> Vec<u8> {
    let (salt, file_key, nonce) = (random(), random(), random());
    let wrapping = passphrase.derive(&salt, log_n).expect("the parameters are valid");
    let wrapped = ChaCha20Poly1305::new(&wrapping.into()).encrypt(&Nonce::default(), &file_key[..]);
    let wrapped = wrapped.expect("a short text can be encrypted");
    let (salt, wrapped) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(wrapped));
    let header = format!("{VERSION_LINE}\n-> scrypt {salt} {log_n}\n{wrapped}\n---");
    let mac = STANDARD_NO_PAD.encode(header_mac(&file_key, header.as_bytes()).finalize().into_bytes());
    let mut file = format!("{header} {mac}\n").into_bytes();
    file.extend_from_slice(&nonce);
    let cipher = payload_cipher(&file_key, &nonce);
    let last = plain.len().saturating_sub(1) / CHUNK_BYTES;
    for number in 0..=last {
        let chunk = &plain[number * CHUNK_BYTES..plain.len().min((number + 1) * CHUNK_BYTES)];
        let sealed = cipher.encrypt(&chunk_nonce(number, number == last), chunk);
        file.extend(sealed.expect("a chunk can be encrypted"));
    }
    file
}

/// Decrypts a file that [`encrypt`], or `age -p`, wrote.
///
/// # Errors
/// [`Error`], by what is wrong with the file or the passphrase.
pub fn decrypt(file: &[u8], passphrase: &Passphrase) -> Result<Vec<u8>, Error> {
    let header = Header::parse(file)?;
    if header.log_n > MAX_LOG_N {
        return Err(Error::TooExpensive);
    }
    let wrapping = passphrase.derive(&header.salt, header.log_n)?;
    let unwrapped = ChaCha20Poly1305::new(&wrapping.into()).decrypt(&Nonce::default(), &header.wrapped[..]);
    let file_key: [u8; KEY_BYTES] =
        unwrapped.map_err(|_| Error::WrongPassphrase)?.try_into().map_err(|_| Error::Malformed)?;
    header_mac(&file_key, header.covered).verify_slice(&header.mac).map_err(|_| Error::Damaged)?;
    let (nonce, mut left) = header.payload.split_first_chunk::<16>().ok_or(Error::Damaged)?;
    let cipher = payload_cipher(&file_key, nonce);
    let mut plain = Vec::with_capacity(left.len());
    for number in 0.. {
        let (chunk, rest) = left.split_at(left.len().min(CHUNK_BYTES + TAG_BYTES));
        let opened = cipher.decrypt(&chunk_nonce(number, rest.is_empty()), chunk);
        plain.extend(opened.map_err(|_| Error::Damaged)?);
        if rest.is_empty() {
            break;
        }
        left = rest;
    }
    Ok(plain)
}

/// 128 random bits, out of the 244 of two random ids.
fn random() -> [u8; KEY_BYTES] {
    let ids = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    Sha256::digest(ids)[..KEY_BYTES].try_into().expect("a digest has 32 bytes")
}

/// The parts of a file.
struct Header<'a> {
    salt: Vec<u8>,
    log_n: u8,
    wrapped: Vec<u8>,
    /// What the code below authenticates.
    covered: &'a [u8],
    mac: Vec<u8>,
    payload: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let mut left = file;
        let mut next = || -> Option<&'a str> {
            let end = left.iter().position(|byte| *byte == b'\n')?;
            let line = std::str::from_utf8(&left[..end]).ok()?;
            left = &left[end + 1..];
            Some(line)
        };
        let lines = (next(), next(), next(), next());
        let (Some(VERSION_LINE), Some(stanza), Some(wrapped), Some(last)) = lines else {
            return Err(Error::Malformed);
        };
        let decoded = |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| Error::Malformed);
        let (salt, log_n) =
            stanza.strip_prefix("-> scrypt ").and_then(|rest| rest.split_once(' ')).ok_or(Error::Malformed)?;
        let mac = decoded(last.strip_prefix("--- ").ok_or(Error::Malformed)?)?;
        let log_n = log_n.parse().map_err(|_| Error::Malformed)?;
        let covered = &file[..file.len() - left.len() - (last.len() + 1) + "---".len()];
        Ok(Self { salt: decoded(salt)?, log_n, wrapped: decoded(wrapped)?, covered, mac, payload: left })
    }
}

fn header_mac(file_key: &[u8], covered: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(&expand(file_key, None, b"header"))
        .expect("a key of any length is taken");
    mac.update(covered);
    mac
}

fn payload_cipher(file_key: &[u8], nonce: &[u8]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&expand(file_key, Some(nonce), b"payload").into())
}

fn expand(file_key: &[u8], salt: Option<&[u8]>, label: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    hkdf::Hkdf::<Sha256>::new(salt, file_key).expand(label, &mut key).expect("32 bytes are not too many");
    key
}

/// Eleven bytes of the chunk's number, then whether it is the last one.
fn chunk_nonce(number: usize, last: bool) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[3..11].copy_from_slice(&(number as u64).to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::parse(text).expect("a passphrase")
    }

    #[test]
    fn what_was_encrypted_is_opened_by_its_passphrase_alone() {
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..size).map(|place| place as u8).collect();
            let file = encrypt_with(&plain, &passphrase("correct horse"), 4);
            assert!(decrypt(&file, &passphrase("correct horse")) == Ok(plain), "{size} bytes");
            assert_eq!(decrypt(&file, &passphrase("correct house")), Err(Error::WrongPassphrase));
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let file = encrypt_with(b"whsec_secret", &passphrase("p"), 4);
        for place in 0..file.len() {
            let mut changed = file.clone();
            changed[place] ^= 1;
            assert!(decrypt(&changed, &passphrase("p")).is_err(), "byte {place}");
            assert!(decrypt(&file[..place], &passphrase("p")).is_err(), "the first {place} bytes");
        }
    }

    #[test]
    fn a_file_that_asks_for_too_much_memory_is_refused() {
        let (salt, wrapped) = (STANDARD_NO_PAD.encode([0; 16]), STANDARD_NO_PAD.encode([0; 32]));
        let file = format!("{VERSION_LINE}\n-> scrypt {salt} 30\n{wrapped}\n--- {wrapped}\n");
        assert_eq!(decrypt(file.as_bytes(), &passphrase("p")), Err(Error::TooExpensive));
    }

    #[test]
    fn a_file_of_the_program_age_is_opened() {
        // printf whsec_from_age | age -p, version 1.1.1, with the passphrase `correct horse`.
        const FILE: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCA1ZG02RStpSm5QbTg1c2RsTmcrc3FRIDE4Ck1SMlZOVzJmRnJTcVFIcG\
            FpT0RQYXljbmJPeXFDcFhUdW5HUmFmNE1sSmcKLS0tIC9rNzBaeXJaWXBMVTBDS2ZEN0VsZDhuSjhLSnBETnQraXBKTG9yU1FTd1EKxMw2+U5jDb9KB3tq\
            A+XBEPRpcD+YnkFmT1JvENiVRIahtP/Q3Fu6UzfnakAbag";
        let file = STANDARD_NO_PAD.decode(FILE).expect("base64");
        assert_eq!(decrypt(&file, &passphrase("correct horse")).as_deref(), Ok(&b"whsec_from_age"[..]));
        assert_eq!(decrypt(&file, &passphrase("correct house")), Err(Error::WrongPassphrase));
    }

    #[test]
    fn a_passphrase_is_not_shown() {
        assert_eq!(format!("{:?}", passphrase("hunter2")), "Passphrase(***)");
        assert!(Passphrase::parse("").is_err());
    }
}
