//! Uploaded originals: who finds one, and which blobs everybody may read. A client gets renditions and variants by their
//! keys; an original only by its image, whose user is known.
//!
//! Originals have keys of their own, so reading a rendition asks no database. Older programs stored originals under the same
//! kind of key as renditions. Where there may be such blobs, a blob is for everybody only if a rendition or a variant is
//! stored in it. That never changes for the bytes of a rendition, so a process asks once about each blob.

use std::sync::atomic::{AtomicU8, Ordering};

use moka::sync::Cache;

use crate::{
    blobs::BlobKey,
    catalog::{Catalog, Error},
    db::{blobs::references, connection::installation, products::variants},
    domain::{ImageId, ProductId},
};

/// Blobs that a process remembers as renditions or variants, some 150 bytes each.
const MAX_KNOWN_BLOBS: u64 = 100_000;

/// What is known of originals among the blobs with plain keys.
#[derive(Debug)]
pub(in crate::catalog) struct Originals {
    plain: AtomicU8,
    /// Blobs in which a rendition or a variant was found. Only used while there may be plain originals.
    made: Cache<BlobKey, ()>,
}

const UNKNOWN: u8 = 0;
const NONE: u8 = 1;
const SOME: u8 = 2;

impl Default for Originals {
    fn default() -> Self {
        Self { plain: AtomicU8::new(UNKNOWN), made: Cache::new(MAX_KNOWN_BLOBS) }
    }
}

/// The product of an image, and the blob of its uploaded file, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The product.
    pub product: ProductId,
    /// The uploaded file.
    pub original: Option<BlobKey>,
}

impl Catalog {
    /// Whether everybody may read the blob: it is a rendition or a variant, never an uploaded original.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database, which is asked only where older programs may have stored originals.
    pub async fn is_public(&self, key: &BlobKey) -> Result<bool, Error> {
        if key.is_original() {
            return Ok(false);
        }
        let originals = &self.0.originals;
        if originals.plain.load(Ordering::Relaxed) == UNKNOWN {
            self.look_for_plain_originals().await?;
        }
        if originals.plain.load(Ordering::Relaxed) == NONE || originals.made.contains_key(key) {
            return Ok(true);
        }
        let made = references::is_made(&self.database().read(), key.as_str()).await?;
        if made {
            originals.made.insert(key.clone(), ());
        }
        Ok(made)
    }

    /// Looks whether there may be originals with plain keys by now. Once there may be, there may be for good.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn look_for_plain_originals(&self) -> Result<(), Error> {
        let plain = &self.0.originals.plain;
        if plain.load(Ordering::Relaxed) != SOME {
            let found = installation::has_plain_originals(&self.database().read()).await?;
            plain.store(if found { SOME } else { NONE }, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets what is known of the blobs: the database holds another installation.
    pub(in crate::catalog) fn forget_originals(&self) {
        self.0.originals.plain.store(UNKNOWN, Ordering::Relaxed);
        self.0.originals.made.invalidate_all();
    }

    /// The product of an image and its uploaded file.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such image.
    pub async fn origin_of(&self, image: ImageId) -> Result<Origin, Error> {
        let found = variants::origin_of(&self.database().read(), image).await?;
        let (product, key) = found.ok_or_else(|| Error::not_found(format_args!("image {image}")))?;
        Ok(Origin { product, original: key.as_deref().and_then(BlobKey::parse) })
    }

    /// The blob of the file that was uploaded as image `image` of product `id`. Whether somebody may read it is not asked
    /// here.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the product has no such image, or the image comes from an address.
    pub async fn original(&self, id: ProductId, image: ImageId) -> Result<BlobKey, Error> {
        let missing = |what: &str| Error::not_found(format_args!("{what} {image} of product {id}"));
        let origin = self.origin_of(image).await.map_err(|error| match error {
            Error::NotFound { .. } => missing("image"),
            error => error,
        })?;
        if origin.product != id {
            return Err(missing("image"));
        }
        origin.original.ok_or_else(|| missing("uploaded file of image"))
    }
}
