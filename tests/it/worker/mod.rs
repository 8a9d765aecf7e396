//! An image from acceptance to its end: ready with every rendition, or failed with a reason; none is lost.

mod bad_images;
mod crashes;
mod dead_letters;
mod deleting;
mod fairness;
mod finished;
#[cfg(unix)]
mod isolation;
mod pipeline;
mod retries;
mod running;
mod same_bytes;
#[cfg(target_os = "linux")]
mod sandbox;
