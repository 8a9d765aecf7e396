//! Signs URLs: HMAC-SHA256 of the path after the signature, in unpadded URL-safe Base64.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::secret::Secret;

/// Keys for signing URLs. The first key signs; every key verifies, so keys can be rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlKeys(Vec<Secret<String>>);

impl UrlKeys {
    /// Minimum characters of a key.
    pub const MIN_CHARS: usize = 32;

    /// Parses comma-separated keys.
    ///
    /// # Errors
    /// A message if there is no key or one is too short.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys: Vec<_> = text.split(',').map(str::trim).collect();
        if keys.iter().any(|key| key.chars().count() < Self::MIN_CHARS) {
            return Err(format!("has a key with fewer than {} characters", Self::MIN_CHARS));
        }
        Ok(Self(keys.into_iter().map(|key| Secret::new(key.to_owned())).collect()))
    }

    /// Returns the keys in plain text, as [`parse`](Self::parse) reads them: for the encrypted part of a backup.
    pub fn reveal(&self) -> String {
        self.0.iter().map(|key| key.reveal().as_str()).collect::<Vec<_>>().join(",")
    }

    /// Returns the signature of `{options}/{image_id}`.
    pub fn sign(&self, options: &str, image_id: &str) -> String {
        let signer = self.0.first().map(|key| mac(key.reveal(), options, image_id));
        signer.map(|mac| URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())).unwrap_or_default()
    }

    /// Returns whether one of the keys made `signature`; compares in constant time.
    pub fn verify(&self, signature: &str, options: &str, image_id: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        self.0.iter().any(|key| mac(key.reveal(), options, image_id).verify_slice(&signature).is_ok())
    }
}

fn mac(key: &str, options: &str, image_id: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key of any length is taken");
    mac.update(options.as_bytes());
    mac.update(b"/");
    mac.update(image_id.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn a_signature_is_valid_only_for_its_options_and_image() {
        let keys = UrlKeys::parse(OLD).expect("a key");
        let signature = keys.sign("w=300", "7");
        // echo -n 'w=300/7' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef -binary | basenc --base64url
        assert_eq!(signature, "-qcGygEVUWD0ckjutvmrGlDbF4Fj1sqZmsNMdkrIVsU");
        assert!(keys.verify(&signature, "w=300", "7"));
        for (options, image) in [("w=301", "7"), ("w=300", "8"), ("w=300/7", ""), ("", "w=300/7")] {
            assert!(!keys.verify(&signature, options, image), "{options} {image}");
        }
        for wrong in ["", "x", &signature[1..], &format!("{signature}="), &format!("{signature}AA")] {
            assert!(!keys.verify(wrong, "w=300", "7"), "{wrong}");
        }
    }

    #[test]
    fn an_old_key_verifies_until_it_is_removed() {
        let signature = UrlKeys::parse(OLD).expect("a key").sign("w=1", "1");
        assert!(UrlKeys::parse(&format!("{NEW}, {OLD}")).expect("keys").verify(&signature, "w=1", "1"));
        assert!(!UrlKeys::parse(NEW).expect("a key").verify(&signature, "w=1", "1"));
        assert!(UrlKeys::parse("short").is_err() && UrlKeys::parse("").is_err());
    }
}
