//! Files that are handed over as sources of images: stored only once their headers prove to be an image's.

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    blobs::{Blobs, Staged},
    catalog::{Catalog, Error},
    domain::{ImageSource, Invalid},
    imaging::{self, Limits, SourceFormat},
};

/// Files of this process that are in memory at a time while their headers are read.
const FILES_IN_MEMORY: usize = 2;
static IN_MEMORY: Semaphore = Semaphore::const_new(FILES_IN_MEMORY);

/// A file that arrives piece by piece; dropped before [`store`](Self::store), nothing is left of it.
#[derive(Debug)]
pub struct IncomingSource {
    blobs: Blobs,
    staged: Staged,
}

impl Catalog {
    /// Stores a file that was handed over, as the source of an image.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is no image of a kind that is read; else as the storage says.
    pub async fn store_source(&self, bytes: Bytes) -> Result<ImageSource, Error> {
        let format = image_format(&bytes)?;
        let key = self.0.engines.blobs.put_original(bytes, format.extension()).await?;
        Ok(ImageSource::Stored(key.to_string()))
    }

    /// Begins a file that arrives piece by piece.
    ///
    /// # Errors
    /// As the storage says.
    pub async fn receive_source(&self) -> Result<IncomingSource, Error> {
        let blobs = self.0.engines.blobs.clone();
        let staged = blobs.stage().await?;
        Ok(IncomingSource { blobs, staged })
    }
}

impl IncomingSource {
    /// Bytes so far.
    pub const fn size(&self) -> u64 {
        self.staged.size()
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// As the storage says.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        Ok(self.staged.write(piece).await?)
    }

    /// Stores the file as the source of an image. Its bytes are in memory while its headers are read, of no more than
    /// two files at a time.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is no image of a kind that is read; else as the storage says.
    pub async fn store(mut self) -> Result<ImageSource, Error> {
        let format = {
            // It is never closed.
            let _turn = IN_MEMORY.acquire().await.map_err(|_| Error::busy("storage"))?;
            self.staged.examine(image_format).await??
        };
        let key = self.staged.original_key(format.extension()).await?;
        self.blobs.keep(self.staged, &key).await?;
        Ok(ImageSource::Stored(key.to_string()))
    }
}

/// The format of an image that is read.
fn image_format(bytes: &[u8]) -> Result<SourceFormat, Invalid> {
    let probed = imaging::probe(bytes, &Limits::default());
    probed.map(|probe| probe.format).map_err(|error| Invalid::field("product_images", error.to_string()))
}
