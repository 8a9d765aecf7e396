//! The words of `pm image`.

use clap::{Args, Subcommand};

/// Single pictures.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Image {
    /// Write the signed address of a picture in any size
    Link(ImageLink),
}

/// What the form is to be like.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImageLink {
    /// The picture's number
    pub(in crate::cli) id: i64,
    /// At most this many pixels across
    #[arg(long, value_name = "PIXELS", required_unless_present = "height")]
    pub(in crate::cli) width: Option<u32>,
    /// At most this many pixels down
    #[arg(long, value_name = "PIXELS")]
    pub(in crate::cli) height: Option<u32>,
    /// contain, cover or fill
    #[arg(long)]
    pub(in crate::cli) fit: Option<String>,
    /// With cover: center, top, bottom-left, … or hundredths from the left and the top such as 30x70
    #[arg(long)]
    pub(in crate::cli) focus: Option<String>,
    /// The device's pixel ratio, 1 to 4
    #[arg(long, value_name = "RATIO")]
    pub(in crate::cli) dpr: Option<String>,
    /// auto, jpeg, webp, webp-lossless, png or avif
    #[arg(long)]
    pub(in crate::cli) format: Option<String>,
    /// 1 to 100
    #[arg(long)]
    pub(in crate::cli) quality: Option<u32>,
}
