//! Determines the length of an RSA key. Keys shorter than [`MIN_BITS`] are refused, because they can be broken.

use rustls::pki_types::PrivateKeyDer;

/// Minimum length of an RSA key in bits.
pub(super) const MIN_BITS: usize = 2_048;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
/// rsaEncryption, 1.2.840.113549.1.1.1, with its tag and length.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// Returns the bits of the modulus; `None` if the key is not an RSA key or is malformed.
pub(in crate::http) fn of(key: &PrivateKeyDer<'_>) -> Option<usize> {
    match key {
        PrivateKeyDer::Pkcs1(key) => modulus_bits(key.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(key) => {
            let (info, _) = element(key.secret_pkcs8_der(), SEQUENCE)?;
            let (_, rest) = element(info, INTEGER)?;
            let (algorithm, rest) = element(rest, SEQUENCE)?;
            let (key, _) = element(rest, OCTET_STRING)?;
            algorithm.starts_with(RSA).then(|| modulus_bits(key)).flatten()
        }
        _ => None,
    }
}

/// Returns the bits of the second integer of an `RSAPrivateKey`, the modulus (RFC 8017).
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let (numbers, _) = element(der, SEQUENCE)?;
    let (_, rest) = element(numbers, INTEGER)?;
    let (modulus, _) = element(rest, INTEGER)?;
    let start = modulus.iter().position(|byte| *byte != 0)?;
    Some((modulus.len() - start) * 8 - modulus[start].leading_zeros() as usize)
}

/// Splits off the first DER element; returns its content and the rest, or `None` if it has another tag.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length & 0x80 {
        0 => (usize::from(*length), rest),
        _ => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let fits = digits.len() <= size_of::<u32>();
            let length = digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
            fits.then_some((length, rest))?
        }
    };
    (*first == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn the_length_of_rsa_keys_is_read_from_pkcs1_and_pkcs8() {
        for (pem, bits) in [
            (include_str!("../tests/keys/rsa_1024.pem"), Some(1_024)),
            (include_str!("../tests/keys/rsa_1024_pkcs1.pem"), Some(1_024)),
            (include_str!("../tests/keys/rsa_2048.pem"), Some(2_048)),
        ] {
            let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
            assert_eq!(of(&key), bits);
            let der = key.secret_der().to_vec();
            for length in 0..der.len().min(40) {
                assert_eq!(modulus_bits(&der[..length]), None, "the first {length} bytes");
            }
        }
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let key = PrivateKeyDer::from_pem_slice(pair.serialize_pem().as_bytes()).expect("a key");
        assert_eq!(of(&key), None);
    }
}
