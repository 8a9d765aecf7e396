//! Access to uploaded originals.
//!
//! Renditions and variants are public under their keys. An original is only available through its image, whose owner is
//! known.
//!
//! Originals have a separate kind of key, so reading a rendition needs no database query. Earlier versions stored
//! originals under the same kind of key as renditions. If such blobs may exist, a blob is public only if a rendition or
//! a variant refers to it. The answer never changes for a rendition, so each process queries it once per blob.

use std::sync::atomic::{AtomicU8, Ordering};

use moka::sync::Cache;

use crate::{
    blobs::BlobKey,
    catalog::{Catalog, Error},
    db::{blobs::references, connection::installation, products::variants},
    domain::{ImageId, ProductId},
};

/// Maximum number of blobs cached as public, about 150 bytes each.
const MAX_KNOWN_BLOBS: u64 = 100_000;

/// Cached knowledge about originals with plain keys.
#[derive(Debug)]
pub(in crate::catalog) struct Originals {
    plain: AtomicU8,
    /// Blobs of renditions or variants. Only used if there may be originals with plain keys.
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

/// The product of an image, and the blob of its uploaded file, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The product.
    pub product: ProductId,
    /// The uploaded file.
    pub original: Option<BlobKey>,
}

impl Catalog {
    /// Whether the blob is public: a rendition or a variant, not an uploaded original.
    ///
    /// Queries the database only if earlier versions may have stored originals.
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

    /// Checks whether originals with plain keys may exist; a positive answer is final.
    pub async fn look_for_plain_originals(&self) -> Result<(), Error> {
        let plain = &self.0.originals.plain;
        if plain.load(Ordering::Relaxed) != SOME {
            let found = installation::has_plain_originals(&self.database().read()).await?;
            plain.store(if found { SOME } else { NONE }, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Clears the cached knowledge, because the installation changed.
    pub(in crate::catalog) fn clear_originals(&self) {
        self.0.originals.plain.store(UNKNOWN, Ordering::Relaxed);
        self.0.originals.made.invalidate_all();
    }

    /// Returns the product of an image and its uploaded file.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the image does not exist.
    pub async fn origin_of(&self, image: ImageId) -> Result<Origin, Error> {
        let found = variants::origin_of(&self.database().read(), image).await?;
        let (product, key) = found.ok_or_else(|| Error::not_found(format_args!("image {image}")))?;
        Ok(Origin { product, original: key.as_deref().and_then(BlobKey::parse) })
    }

    /// Returns the blob of the uploaded file of an image. Does not check permissions.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the product has no such image, or if its source is a URL.
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
