//! Images on the command line: a URL or a local file.

use std::path::Path;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::failure::{Exit, Failure};
use crate::{
    catalog::{self, Catalog},
    domain::ImageSource,
};

/// Returns whether the image is a URL rather than a file.
pub(super) fn is_address(image: &str) -> bool {
    let scheme = image.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Stores a local image file; messages name the `flag`.
pub(super) async fn store(flag: &str, file: &str, catalog: &Catalog, limit: u64) -> Result<ImageSource, Failure> {
    let about = |reason: String| Failure::new(Exit::Usage, format!("{flag} {file}: {reason}"));
    let bytes = read(Path::new(file), limit).await.map_err(about)?;
    catalog.store_source(bytes).await.map_err(|error| match error {
        catalog::Error::Invalid(invalid) => {
            let reasons: Vec<_> = invalid.errors.listed().iter().map(|error| error.message.as_str()).collect();
            about(reasons.join("; "))
        }
        error => Failure::from(error).context(format!("cannot store {file}")),
    })
}

async fn read(path: &Path, limit: u64) -> Result<Bytes, String> {
    let unreadable = |error: std::io::Error| format!("it cannot be read: {error}");
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let metadata = file.metadata().await.map_err(unreadable)?;
    if metadata.is_dir() {
        return Err("it is a directory".into());
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(limit) as usize);
    // Reading one byte beyond the limit detects an oversized file, even for a pipe of unknown size.
    file.take(limit + 1).read_to_end(&mut bytes).await.map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(format!("it has more than {limit} bytes, the limit of PM_FETCH_MAX_BYTES"));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_over_the_limit_is_not_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("image");
        std::fs::write(&file, [0; 100]).expect("a file");
        assert_eq!(read(&file, 100).await.map(|bytes| bytes.len()), Ok(100));
        assert!(read(&file, 99).await.expect_err("too much").contains("99 bytes"));
        assert!(read(directory.path(), 99).await.expect_err("no file").contains("directory"));
        assert!(read(&directory.path().join("none"), 99).await.is_err());
    }
}
