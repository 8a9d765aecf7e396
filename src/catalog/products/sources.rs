//! Uploads of source files. A file is stored only after a decoder has recognized its headers as an image's.
//!
//! The decoder runs in another process, unless isolation is off.

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    blobs::{BlobKey, Staged},
    catalog::{Catalog, Error, Once, Precondition, Updated},
    domain::{ImageSource, ImagesPatch, Invalid, ProductId, ProductPatch},
    imaging::SourceFormat,
    isolation::{self, DecodeTask, Decoders},
};

/// Maximum number of files in memory per process while their headers are read.
pub const FILES_IN_MEMORY: usize = 2;
static IN_MEMORY: Semaphore = Semaphore::const_new(FILES_IN_MEMORY);

/// A file that is being uploaded; deleted if it is dropped before it is stored.
#[derive(Debug)]
pub struct IncomingSource(Staged);

/// Stored files that no image refers to yet; deleted in the background if dropped.
#[derive(Debug)]
pub struct UploadedFiles {
    catalog: Catalog,
    keys: Vec<BlobKey>,
}

impl Catalog {
    /// Sets the decoders that read file headers, instead of threads of this process. Only the first call has an effect.
    pub fn examine_by(&self, decoders: Decoders) {
        let _ = self.0.decoders.set(decoders);
    }

    /// Stores an uploaded file as the source of an image.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not an image in a supported format; [`Error::Unavailable`] if no decoder is
    /// available or the storage does not answer.
    pub async fn store_source(&self, bytes: Bytes) -> Result<ImageSource, Error> {
        let format = self.image_format(bytes.clone()).await?;
        let key = self.0.engines.blobs.put_original(bytes, format.extension()).await?;
        Ok(ImageSource::Stored(key.to_string()))
    }

    /// Begins the upload of a file.
    pub async fn receive_source(&self) -> Result<IncomingSource, Error> {
        Ok(IncomingSource(self.0.engines.blobs.stage().await?))
    }

    /// Begins a set of files of one request.
    pub fn begin_upload(&self) -> UploadedFiles {
        UploadedFiles { catalog: self.clone(), keys: Vec::new() }
    }

    /// Adds uploaded files as images after the last image of a product.
    ///
    /// If the change fails, or an earlier request with the same key has made it, unreferenced files are deleted.
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
        // A separate task: the outcome decides whether the files are kept, even if the client disconnects.
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

    /// Stores a file that is known to be an image.
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

    /// Reads the headers of a file; returns its image format.
    async fn image_format(&self, source: Bytes) -> Result<SourceFormat, Error> {
        let image = DecodeTask { source, presets: Vec::new(), limits: self.0.config.limits.clone() };
        let probed = match self.0.decoders.get() {
            Some(decoders) => decoders.probe(&image).await,
            None => Decoders::Threads.probe(&image).await,
        };
        probed.map_err(|error| {
            if error.is_of_the_system() {
                return Error::Unavailable { component: "decoder", source: std::sync::Arc::new(error) };
            }
            if let isolation::Error::Died(_) = &error {
                tracing::warn!("an uploaded file was rejected: {error}");
            }
            Invalid::field("product_images", error.to_string()).into()
        })
    }
}

impl IncomingSource {
    /// Returns the number of bytes received so far.
    pub const fn size(&self) -> u64 {
        self.0.size()
    }

    /// Appends a chunk.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        Ok(self.0.write(piece).await?)
    }
}

impl UploadedFiles {
    /// Returns the number of files.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no files.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Stores another file.
    ///
    /// The file is in memory while its headers are read, at most [`FILES_IN_MEMORY`] at a time.
    ///
    /// # Errors
    /// As for [`Catalog::store_source`].
    pub async fn store(&mut self, incoming: IncomingSource) -> Result<(), Error> {
        let mut staged = incoming.0;
        let format = {
            // The semaphore is never closed.
            let _turn = IN_MEMORY.acquire().await.map_err(|_| Error::contended("storage"))?;
            let bytes = staged.read().await?;
            self.catalog.image_format(bytes).await?
        };
        let key = staged.original_key(format.extension()).await?;
        let catalog = self.catalog.clone();
        // A separate task: if the client disconnects, the stored file is dropped and so deleted.
        let task = tokio::spawn(async move { catalog.take_in(staged, key).await });
        let mut stored = task.await.map_err(Error::internal)??;
        self.keys.append(&mut stored.keys);
        Ok(())
    }

    /// Deletes the files that no row or other upload uses.
    pub async fn discard(mut self) {
        if let Some(task) = self.begin_discard() {
            // It fails only after a panic, which is logged.
            let _ = task.await;
        }
    }

    /// Returns the blob keys in upload order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(BlobKey::as_str)
    }

    fn sources(&self) -> Vec<ImageSource> {
        self.keys.iter().map(|key| ImageSource::Stored(key.to_string())).collect()
    }

    /// Keeps the files, because images refer to them now.
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
