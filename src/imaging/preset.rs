//! Presets and output formats.

use serde::{Deserialize, Serialize};

/// A rendition to make of every image, in one or more formats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preset {
    /// Name, shared by its renditions.
    pub name: String,
    /// Maximum size.
    pub size: Size,
    /// How the image fits the size.
    pub fit: Fit,
    /// Formats; each gives one rendition.
    pub formats: Vec<OutputFormat>,
    /// Quality of lossy formats, clamped to 1 to 100.
    pub quality: u8,
    /// Encoding effort.
    pub effort: Effort,
}

/// Encoding time spent to reduce bytes at equal quality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Effort {
    /// Fastest with good quality.
    Fast,
    /// Balanced time and size.
    #[default]
    Balanced,
    /// Fewest bytes, regardless of time.
    Small,
}

impl Effort {
    /// Returns the name in settings: `fast`, `balanced`, `small`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Small => "small",
        }
    }

    /// Parses the name in settings.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Fast, Self::Balanced, Self::Small].into_iter().find(|effort| effort.as_str() == name)
    }
}

/// Maximum size of a rendition in pixels. Images are never enlarged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Size {
    /// Maximum longer side.
    LongestEdge(u32),
    /// Maximum width and height.
    Box {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
}

/// How an image fits a box of another aspect ratio. Without a box, all are `Contain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fit {
    /// The whole image inside the box.
    Contain,
    /// Crops to the box's aspect ratio, centered as closely as possible on this point.
    Cover(Focus),
    /// Stretches the whole image to the box; sides shorter than the box keep their length.
    Fill,
}

/// Focus point of a crop, relative to the upright image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Focus {
    across: u16,
    down: u16,
}

impl Focus {
    /// Center of the image.
    pub const CENTER: Self = Self { across: 500, down: 500 };

    /// Returns the point at these thousandths from the left and top, each at most 1,000.
    pub const fn from_thousandths(across: u16, down: u16) -> Option<Self> {
        if across <= 1000 && down <= 1000 { Some(Self { across, down }) } else { None }
    }

    /// Parses an edge, a corner or the center: `top`, `bottom-left`, `center`.
    pub fn named(name: &str) -> Option<Self> {
        let (down, across) = match name {
            "center" => (500, 500),
            "top" => (0, 500),
            "bottom" => (1000, 500),
            "left" => (500, 0),
            "right" => (500, 1000),
            "top-left" => (0, 0),
            "top-right" => (0, 1000),
            "bottom-left" => (1000, 0),
            "bottom-right" => (1000, 1000),
            _ => return None,
        };
        Some(Self { across, down })
    }

    /// Returns thousandths from the left and from the top.
    pub const fn thousandths(self) -> (u16, u16) {
        (self.across, self.down)
    }

    /// Returns fractions of width and height from the top left, 0 to 1.
    pub(super) fn shares(self) -> (f64, f64) {
        (f64::from(self.across) / 1000.0, f64::from(self.down) / 1000.0)
    }
}

/// Output format of renditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OutputFormat {
    /// Baseline JPEG, 4:2:0; transparency is composed on white.
    Jpeg,
    /// Lossy WebP, with transparency.
    Webp,
    /// Lossless WebP, with transparency.
    WebpLossless,
    /// PNG, with transparency.
    Png,
    /// AVIF, with transparency: fewest bytes and by far the slowest.
    Avif,
}

impl OutputFormat {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Jpeg, Self::Webp, Self::WebpLossless, Self::Png, Self::Avif];

    /// Returns the name in settings: `jpeg`, `webp`, `webp-lossless`, `png`, `avif`.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::WebpLossless => "webp-lossless",
            other => other.as_str(),
        }
    }

    /// Returns the name in API responses: `jpeg`, `webp` (lossy and lossless), `png`, `avif`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Webp | Self::WebpLossless => "webp",
            Self::Png => "png",
            Self::Avif => "avif",
        }
    }

    /// Returns the file extension without its dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            other => other.as_str(),
        }
    }

    /// Returns the media type for `Content-Type`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Webp | Self::WebpLossless => "image/webp",
            Self::Png => "image/png",
            Self::Avif => "image/avif",
        }
    }

    /// Returns whether this build can encode it: AVIF is a default Cargo feature.
    pub const fn is_built_in(self) -> bool {
        !matches!(self, Self::Avif) || cfg!(feature = "avif")
    }

    /// Returns whether the format is lossless.
    pub const fn is_lossless(self) -> bool {
        matches!(self, Self::WebpLossless | Self::Png)
    }

    /// Returns the format's maximum side in pixels.
    pub(super) const fn max_side(self) -> u32 {
        match self {
            Self::Webp | Self::WebpLossless => 16_383,
            Self::Jpeg | Self::Avif => 65_535,
            Self::Png => i32::MAX as u32,
        }
    }

    /// Parses the name in settings, in any case; `jpg` means JPEG.
    pub fn parse(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("jpg") {
            return Some(Self::Jpeg);
        }
        Self::ALL.into_iter().find(|format| name.eq_ignore_ascii_case(format.setting()))
    }
}

/// Returns the default presets: `large` 2048 px JPEG, `medium` 1024 px and `small` 512 px WebP, `thumb` 160 px JPEG,
/// all by longest edge at quality 80.
pub fn default_presets() -> Vec<Preset> {
    [
        ("large", 2048, OutputFormat::Jpeg),
        ("medium", 1024, OutputFormat::Webp),
        ("small", 512, OutputFormat::Webp),
        ("thumb", 160, OutputFormat::Jpeg),
    ]
    .into_iter()
    .map(|(name, edge, format)| Preset {
        name: name.to_owned(),
        size: Size::LongestEdge(edge),
        fit: Fit::Contain,
        formats: vec![format],
        quality: 80,
        effort: Effort::Balanced,
    })
    .collect()
}
