//! Content-addressed keys of blobs: equal bytes have one key, and a key never changes its meaning.

use std::fmt;

use sha2::{Digest, Sha256};

/// File extensions of blobs and their media types; no others are stored or served.
const KINDS: &[(&str, &str)] = &[
    ("jpg", "image/jpeg"),
    ("png", "image/png"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("bmp", "image/bmp"),
    ("tiff", "image/tiff"),
    ("avif", "image/avif"),
];

/// Range of the SHA-256 in a key, after two folders of two digits each.
const HASH: std::ops::Range<usize> = 6..70;
/// Folder of uploaded originals. Renditions and variants of the same bytes have separate keys.
pub(super) const ORIGINALS: &str = "original";

/// Key of a blob: `ab/cd/{sha256}.{ext}`.
///
/// The SHA-256 of the bytes is in lowercase hex, and its first digits are the folders. The extension is jpg, png, webp,
/// gif, bmp, tiff or avif. The key of an uploaded original begins with `original/`. A key is safe in a path, a URL and
/// an entity tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey {
    text: String,
    /// Start of the part derived from the bytes.
    begin: usize,
}

impl BlobKey {
    /// Returns the key of `bytes`, or `None` if `extension` is unknown.
    pub fn for_bytes(bytes: &[u8], extension: &str) -> Option<Self> {
        Self::for_hash(&hex::encode(Sha256::digest(bytes)), extension)
    }

    /// Returns the key of bytes with this SHA-256 (64 lowercase hex digits); `None` if the hash is malformed or
    /// `extension` is unknown.
    pub(super) fn for_hash(hash: &str, extension: &str) -> Option<Self> {
        Self::of_file(&format!("{hash}.{extension}"))
    }

    /// Parses a key; accepts only the exact form that [`for_bytes`](Self::for_bytes) returns.
    pub fn parse(text: &str) -> Option<Self> {
        let original = text.strip_prefix(ORIGINALS).and_then(|rest| rest.strip_prefix('/'));
        let plain = original.unwrap_or(text);
        let hash = plain.get(HASH)?;
        let extension = plain.get(HASH.end..)?.strip_prefix('.')?;
        media_type_of(extension)?;
        let hex = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let folders = hex && plain.get(..HASH.start)? == format!("{}/{}/", &hash[..2], &hash[2..4]);
        folders.then(|| Self { text: text.to_owned(), begin: text.len() - plain.len() })
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether this is the key of an uploaded original, which is not public.
    pub const fn is_original(&self) -> bool {
        self.begin > 0
    }

    /// Returns the key of the same bytes as an uploaded original.
    #[must_use]
    pub fn as_original(&self) -> Self {
        Self { text: format!("{ORIGINALS}/{}", self.plain()), begin: ORIGINALS.len() + 1 }
    }

    /// Returns the key of the same bytes without the folder of originals.
    pub fn plain(&self) -> &str {
        &self.text[self.begin..]
    }

    /// Returns the SHA-256 of the bytes: 64 lowercase hex digits.
    pub fn sha256(&self) -> &str {
        &self.plain()[HASH]
    }

    /// Returns the media type, such as `image/webp`.
    pub fn media_type(&self) -> &'static str {
        media_type_of(self.extension()).expect("a key is only made with an extension of the list")
    }

    /// Returns the extension without its dot.
    pub fn extension(&self) -> &str {
        &self.plain()[HASH.end + 1..]
    }

    /// Parses a key from its file name without folders.
    pub(super) fn of_file(name: &str) -> Option<Self> {
        Self::parse(&format!("{}/{}/{name}", name.get(..2)?, name.get(2..4)?))
    }

    /// Returns the folder of the blob.
    pub(super) fn folder(&self) -> &str {
        &self.text[..self.begin + HASH.start - 1]
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn media_type_of(extension: &str) -> Option<&'static str> {
    KINDS.iter().find(|(known, _)| *known == extension).map(|(_, media_type)| *media_type)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ABC: &str = "ba/78/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.jpg";

    #[test]
    fn a_key_consists_of_folders_hash_and_extension() {
        let key = BlobKey::for_bytes(b"abc", "jpg").expect("a known extension");
        assert_eq!(key.as_str(), ABC);
        assert_eq!(key.sha256(), &ABC[6..70]);
        assert_eq!((key.media_type(), key.extension(), key.folder()), ("image/jpeg", "jpg", "ba/78"));
        assert!(!key.is_original());
        assert_eq!(BlobKey::for_bytes(b"abc", "svg"), None);
    }

    #[test]
    fn an_original_and_a_rendition_of_the_same_bytes_have_different_keys() {
        let key = BlobKey::for_bytes(b"abc", "jpg").expect("a known extension");
        let original = key.as_original();
        assert_eq!(original.as_str(), format!("original/{ABC}"));
        assert_eq!((original.is_original(), original.folder(), original.plain()), (true, "original/ba/78", ABC));
        assert_eq!((original.sha256(), original.extension()), (key.sha256(), "jpg"));
        assert_eq!(original.as_original(), original);
    }

    #[test]
    fn only_the_canonical_form_of_a_key_is_parsed() {
        for text in [ABC.to_owned(), format!("original/{ABC}")] {
            assert_eq!(BlobKey::parse(&text).expect("a key").as_str(), text);
        }
        for wrong in [
            "",
            &format!("original/original/{ABC}"),
            &format!("original{ABC}"),
            &format!("Original/{ABC}"),
            &format!("./{ABC}"),
            &format!("original//{ABC}"),
            "ba/78",
            "../../etc/passwd",
            &ABC.to_uppercase(),
            &format!("/{ABC}"),
            &format!("{ABC}/"),
            &format!("{ABC}#1"),
            &format!("{ABC}\0"),
            &ABC.replace("ba/78", "ba/79"),
            &ABC.replace("ba/78", "b/a78"),
            &ABC.replace("ba/", ".."),
            &ABC.replace(".jpg", ".exe"),
            &ABC.replace(".jpg", ".JPG"),
            &ABC.replace(".jpg", ""),
            &ABC.replace(".jpg", "."),
            &ABC.replace("01cf", "01cF"),
            &ABC.replace("01cf", "01c"),
            &ABC.replace("01cf", "01cg"),
            &ABC.replace("ba", "ü"),
        ] {
            assert_eq!(BlobKey::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_key_round_trips_and_matches_its_bytes(bytes in any::<Vec<u8>>(), kind in 0..KINDS.len()) {
            let key = BlobKey::for_bytes(&bytes, KINDS[kind].0).expect("a known extension");
            prop_assert_eq!(BlobKey::parse(key.as_str()), Some(key.clone()));
            let original = key.as_original();
            prop_assert_eq!(BlobKey::parse(original.as_str()), Some(original));
            prop_assert_eq!(key.media_type(), KINDS[kind].1);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,90}") {
            if let Some(key) = BlobKey::parse(&text) {
                prop_assert_eq!(key.as_str(), text);
            }
        }
    }
}
