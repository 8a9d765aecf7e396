//! Arguments of `pm image`.

use clap::{Args, Subcommand};

/// The commands of `pm image`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Image {
    /// Print the signed URL of an image in any size
    Link(ImageLink),
}

/// The size and format of the variant.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImageLink {
    /// The image's id
    pub(in crate::cli) id: i64,
    /// Maximum width
    #[arg(long, value_name = "PIXELS", required_unless_present = "height")]
    pub(in crate::cli) width: Option<u32>,
    /// Maximum height
    #[arg(long, value_name = "PIXELS")]
    pub(in crate::cli) height: Option<u32>,
    /// contain, cover or fill
    #[arg(long)]
    pub(in crate::cli) fit: Option<String>,
    /// With --fit cover: center, top, bottom-left, … or percent from the left and the top, such as 30x70
    #[arg(long)]
    pub(in crate::cli) focus: Option<String>,
    /// Device pixel ratio, 1 to 4
    #[arg(long, value_name = "RATIO")]
    pub(in crate::cli) dpr: Option<String>,
    /// auto, jpeg, webp, webp-lossless, png or avif
    #[arg(long)]
    pub(in crate::cli) format: Option<String>,
    /// Quality, 1 to 100
    #[arg(long)]
    pub(in crate::cli) quality: Option<u32>,
}
