//! Files that are handed over as sources of images: stored only once their headers prove to be an image's. The headers are read
//! by a decoder, not in this process, unless isolation is off.

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    blobs::{Blobs, Staged},
    catalog::{Catalog, Error},
    domain::{ImageSource, Invalid},
    imaging::SourceFormat,
    isolation::{self, Decoders, Picture},
};

/// Files of this process that are in memory at a time while their headers are read.
pub const FILES_IN_MEMORY: usize = 2;
static IN_MEMORY: Semaphore = Semaphore::const_new(FILES_IN_MEMORY);

/// A file that arrives piece by piece; dropped before [`store`](Self::store), nothing is left of it.
#[derive(Debug)]
pub struct IncomingSource {
    catalog: Catalog,
    blobs: Blobs,
    staged: Staged,
}

impl Catalog {
    /// From now on headers of files are read by `decoders`, instead of on threads of this process. The first call counts.
    pub fn examine_by(&self, decoders: Decoders) {
        let _ = self.0.decoders.set(decoders);
    }

    /// Stores a file that was handed over, as the source of an image.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is no image of a kind that is read; [`Error::Unavailable`] if no decoder can be had; else as
    /// the storage says.
    pub async fn store_source(&self, bytes: Bytes) -> Result<ImageSource, Error> {
        let format = self.image_format(bytes.clone()).await?;
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
        Ok(IncomingSource { catalog: self.clone(), blobs, staged })
    }

    /// The format of an image that is read.
    async fn image_format(&self, source: Bytes) -> Result<SourceFormat, Error> {
        let picture = Picture { source, presets: Vec::new(), limits: self.0.config.limits.clone() };
        let probed = match self.0.decoders.get() {
            Some(decoders) => decoders.probe(&picture).await,
            None => Decoders::Threads.probe(&picture).await,
        };
        probed.map_err(|error| {
            if error.is_of_the_system() {
                return Error::Unavailable { component: "decoder", source: std::sync::Arc::new(error) };
            }
            if let isolation::Error::Died(_) = &error {
                tracing::warn!("a file that was handed over is refused: {error}");
            }
            Invalid::field("product_images", error.to_string()).into()
        })
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
    /// As for [`Catalog::store_source`].
    pub async fn store(mut self) -> Result<ImageSource, Error> {
        let format = {
            // It is never closed.
            let _turn = IN_MEMORY.acquire().await.map_err(|_| Error::busy("storage"))?;
            let bytes = self.staged.read().await?;
            self.catalog.image_format(bytes).await?
        };
        let key = self.staged.original_key(format.extension()).await?;
        self.blobs.keep(self.staged, &key).await?;
        Ok(ImageSource::Stored(key.to_string()))
    }
}
