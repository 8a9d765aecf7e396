//! Files that are handed over as sources of images: stored only once their headers prove to be an image's. The headers are read
//! by a decoder, not in this process, unless isolation is off.

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    blobs::{BlobKey, Staged},
    catalog::{Catalog, Error, Once, Precondition, Updated},
    domain::{ImageSource, ImagesPatch, Invalid, ProductId, ProductPatch},
    imaging::SourceFormat,
    isolation::{self, Decoders, Picture},
};

/// Files of this process that are in memory at a time while their headers are read.
pub const FILES_IN_MEMORY: usize = 2;
static IN_MEMORY: Semaphore = Semaphore::const_new(FILES_IN_MEMORY);

/// A file that arrives piece by piece; dropped before it is stored, nothing is left of it.
#[derive(Debug)]
pub struct IncomingSource(Staged);

/// Stored files that no image refers to yet. Dropped before one does, they are removed in the background.
#[derive(Debug)]
pub struct UploadedFiles {
    catalog: Catalog,
    keys: Vec<BlobKey>,
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
        Ok(IncomingSource(self.0.engines.blobs.stage().await?))
    }

    /// Begins a set of files that are uploaded together.
    pub fn begin_upload(&self) -> UploadedFiles {
        UploadedFiles { catalog: self.clone(), keys: Vec::new() }
    }

    /// Adds uploaded files as images behind the last one of a product. If they are refused, or were added by an earlier request
    /// with the same key, files that nothing refers to are removed.
    ///
    /// # Errors
    /// As [`Catalog::update`].
    pub async fn add_uploads(
        &self,
        id: ProductId,
        files: UploadedFiles,
        condition: Option<Precondition>,
        once: Option<Once>,
        request_id: Option<&str>,
    ) -> Result<Updated, Error> {
        let (catalog, request_id) = (self.clone(), request_id.map(str::to_owned));
        // A task of its own: whether the files are referred to is known even if the client goes away.
        let task = tokio::spawn(async move {
            let patch = ProductPatch::of_images(ImagesPatch::Edit { add: files.sources(), remove: Vec::new() });
            let outcome = catalog.update(id, patch, condition, once, request_id.as_deref()).await;
            match &outcome {
                Ok(updated) if !updated.replayed => files.release(),
                _ => files.discard().await,
            }
            outcome
        });
        task.await.map_err(Error::internal)?
    }

    /// Stores a file whose bytes are known to be an image's.
    async fn take_in(&self, staged: Staged, key: BlobKey) -> Result<UploadedFiles, Error> {
        let (blobs, intake) = (&self.0.engines.blobs, &self.0.intake);
        intake.begin(&key).await;
        let mut file = self.begin_upload();
        file.keys.push(key.clone());
        if !blobs.exists(&key).await? {
            intake.note_new(&key);
        }
        blobs.keep(staged, &key).await?;
        Ok(file)
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
        self.0.size()
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// As the storage says.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        Ok(self.0.write(piece).await?)
    }
}

impl UploadedFiles {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Stores one more file. Its bytes are in memory while its headers are read, of no more than two files at a time.
    ///
    /// # Errors
    /// As for [`Catalog::store_source`].
    pub async fn store(&mut self, incoming: IncomingSource) -> Result<(), Error> {
        let mut staged = incoming.0;
        let format = {
            // It is never closed.
            let _turn = IN_MEMORY.acquire().await.map_err(|_| Error::busy("storage"))?;
            let bytes = staged.read().await?;
            self.catalog.image_format(bytes).await?
        };
        let key = staged.original_key(format.extension()).await?;
        let catalog = self.catalog.clone();
        // A task of its own: a file that is stored although nobody waits for it any more is dropped, and so removed.
        let task = tokio::spawn(async move { catalog.take_in(staged, key).await });
        let mut stored = task.await.map_err(Error::internal)??;
        self.keys.append(&mut stored.keys);
        Ok(())
    }

    /// Removes the files that nothing else refers to or is about to refer to.
    pub async fn discard(mut self) {
        if let Some(task) = self.begin_discard() {
            // It fails only by a panic, which is logged.
            let _ = task.await;
        }
    }

    /// The keys of their blobs, in the order in which they came.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(BlobKey::as_str)
    }

    fn sources(&self) -> Vec<ImageSource> {
        self.keys.iter().map(|key| ImageSource::Stored(key.to_string())).collect()
    }

    /// Images refer to the files from now on.
    fn release(mut self) {
        self.catalog.0.intake.release(&std::mem::take(&mut self.keys));
    }

    fn begin_discard(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let keys = std::mem::take(&mut self.keys);
        let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| !keys.is_empty())?;
        let catalog = self.catalog.clone();
        Some(runtime.spawn(async move { catalog.discard(keys).await }))
    }
}

impl Drop for UploadedFiles {
    fn drop(&mut self) {
        let _ = self.begin_discard();
    }
}
