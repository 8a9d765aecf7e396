//! The name of a blob: made from its bytes, so that equal bytes are stored once and a name never changes its meaning.

use std::fmt;

use sha2::{Digest, Sha256};

/// File extensions of blobs and their media types; no other extension is ever stored or served.
const KINDS: &[(&str, &str)] = &[
    ("jpg", "image/jpeg"),
    ("png", "image/png"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("bmp", "image/bmp"),
    ("tiff", "image/tiff"),
    ("avif", "image/avif"),
];

/// Where the SHA-256 stands in a key: after two folders of two digits each.
const HASH: std::ops::Range<usize> = 6..70;

/// `ab/cd/{sha256}.{ext}`: the SHA-256 of the bytes in lower-case hex, its first digits as folders, an extension of the
/// list jpg, png, webp, gif, bmp, tiff, avif. Safe as a path, in a URL and as an entity tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey(String);

impl BlobKey {
    /// The key of `bytes`, or `None` if `extension` is not on the list.
    pub fn for_bytes(bytes: &[u8], extension: &str) -> Option<Self> {
        Self::for_hash(&hex::encode(Sha256::digest(bytes)), extension)
    }

    /// The key of bytes with this SHA-256, 64 digits of lower-case hex; `None` if it is not one, or `extension` is not on the
    /// list.
    pub(super) fn for_hash(hash: &str, extension: &str) -> Option<Self> {
        Self::of_file(&format!("{hash}.{extension}"))
    }

    /// Reads a key strictly: the one spelling that [`for_bytes`](Self::for_bytes) makes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let hash = text.get(HASH)?;
        let extension = text.get(HASH.end..)?.strip_prefix('.')?;
        media_type_of(extension)?;
        let hex = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let folders = hex && text.get(..HASH.start)? == format!("{}/{}/", &hash[..2], &hash[2..4]);
        folders.then(|| Self(text.to_owned()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SHA-256 of the blob's bytes, 64 digits of lower-case hex.
    pub fn sha256(&self) -> &str {
        &self.0[HASH]
    }

    /// The media type that the extension stands for, such as `image/webp`.
    pub fn media_type(&self) -> &'static str {
        media_type_of(self.extension()).expect("a key is only made with an extension of the list")
    }

    /// The extension without its dot.
    pub fn extension(&self) -> &str {
        &self.0[HASH.end + 1..]
    }

    /// The key of the blob whose file is called `name`, its folders left out.
    pub(super) fn of_file(name: &str) -> Option<Self> {
        Self::parse(&format!("{}/{}/{name}", name.get(..2)?, name.get(2..4)?))
    }

    /// The two folders, outermost first.
    pub(super) fn folders(&self) -> (&str, &str) {
        (&self.0[..2], &self.0[3..5])
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    fn a_key_is_made_of_the_hash_its_folders_and_the_extension() {
        let key = BlobKey::for_bytes(b"abc", "jpg").expect("a known extension");
        assert_eq!(key.as_str(), ABC);
        assert_eq!(key.sha256(), &ABC[6..70]);
        assert_eq!((key.media_type(), key.extension(), key.folders()), ("image/jpeg", "jpg", ("ba", "78")));
        assert_eq!(BlobKey::for_bytes(b"abc", "svg"), None);
    }

    #[test]
    fn only_the_one_spelling_of_a_key_is_read() {
        assert_eq!(BlobKey::parse(ABC).expect("a key").as_str(), ABC);
        for wrong in [
            "",
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
        fn every_key_reads_back_and_names_its_bytes(bytes in any::<Vec<u8>>(), kind in 0..KINDS.len()) {
            let key = BlobKey::for_bytes(&bytes, KINDS[kind].0).expect("a known extension");
            prop_assert_eq!(BlobKey::parse(key.as_str()), Some(key.clone()));
            prop_assert_eq!(key.media_type(), KINDS[kind].1);
        }

        #[test]
        fn no_text_makes_reading_panic(text in "\\PC{0,90}") {
            if let Some(key) = BlobKey::parse(&text) {
                prop_assert_eq!(key.as_str(), text);
            }
        }
    }
}
