//! What to make of a picture: the presets, and the formats that go out.

use serde::{Deserialize, Serialize};

/// A size to make of every picture, in one or more formats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preset {
    /// Its name, which the renditions carry.
    pub name: String,
    /// The bounds of the outcome.
    pub size: Size,
    /// How the picture meets the bounds.
    pub fit: Fit,
    /// One rendition is made in each of these.
    pub formats: Vec<OutputFormat>,
    /// Quality of the lossy formats, 1 to 100; others are taken as the nearest of these.
    pub quality: u8,
    /// Time against bytes.
    pub effort: Effort,
}

/// How much time the encoders take to make a rendition small at the same quality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Effort {
    /// The least time that still gives a good picture.
    Fast,
    /// The best use of time.
    #[default]
    Balanced,
    /// As few bytes as possible, whatever the time.
    Small,
}

impl Effort {
    /// The name in settings: `fast`, `balanced`, `small`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Small => "small",
        }
    }

    /// The effort called `name` in settings.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Fast, Self::Balanced, Self::Small].into_iter().find(|effort| effort.as_str() == name)
    }
}

/// The bounds of a rendition, in pixels. A picture is never enlarged to reach them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Size {
    /// The longer side is at most this.
    LongestEdge(u32),
    /// Width and height are at most these.
    Box {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
}

/// How a picture whose shape is not that of the box meets it. Without a box, all are the same as `Contain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fit {
    /// The whole picture, inside the box.
    Contain,
    /// The picture cut to the shape of the box, this point of it as near the middle as the edges allow.
    Cover(Focus),
    /// The whole picture, stretched to the sides of the box; a side of the picture that is shorter stays as it is.
    Fill,
}

/// A point of a picture that is to stay in sight when its edges are cut off, as seen upright.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Focus {
    across: u16,
    down: u16,
}

impl Focus {
    /// The middle of the picture.
    pub const CENTER: Self = Self { across: 500, down: 500 };

    /// The point so many thousandths from the left and from the top, each at most 1,000.
    pub const fn from_thousandths(across: u16, down: u16) -> Option<Self> {
        if across <= 1000 && down <= 1000 { Some(Self { across, down }) } else { None }
    }

    /// An edge, a corner or the middle by its name: `top`, `bottom-left`, `center`.
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

    /// Thousandths from the left and from the top.
    pub const fn thousandths(self) -> (u16, u16) {
        (self.across, self.down)
    }

    /// Shares of the width and of the height, from the upper left corner; 0 to 1.
    pub(super) fn shares(self) -> (f64, f64) {
        (f64::from(self.across) / 1000.0, f64::from(self.down) / 1000.0)
    }
}

/// A format that renditions are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OutputFormat {
    /// Baseline JPEG, 4:2:0; transparency is laid on white.
    Jpeg,
    /// Lossy WebP, with transparency.
    Webp,
    /// WebP without loss, with transparency.
    WebpLossless,
    /// PNG, with transparency.
    Png,
    /// AVIF, with transparency: the fewest bytes and by far the most time.
    Avif,
}

impl OutputFormat {
    /// All formats, by their names in settings.
    pub const ALL: [Self; 5] = [Self::Jpeg, Self::Webp, Self::WebpLossless, Self::Png, Self::Avif];

    /// The name in settings: `jpeg`, `webp`, `webp-lossless`, `png`, `avif`.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::WebpLossless => "webp-lossless",
            other => other.as_str(),
        }
    }

    /// The name in answers: `jpeg`, `webp` (with and without loss), `png`, `avif`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Webp | Self::WebpLossless => "webp",
            Self::Png => "png",
            Self::Avif => "avif",
        }
    }

    /// The ending of a file's name, without its dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            other => other.as_str(),
        }
    }

    /// The value of `Content-Type`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Webp | Self::WebpLossless => "image/webp",
            Self::Png => "image/png",
            Self::Avif => "image/avif",
        }
    }

    /// Whether this build can write it: AVIF is a cargo feature, on unless it is left out.
    pub const fn is_built_in(self) -> bool {
        !matches!(self, Self::Avif) || cfg!(feature = "avif")
    }

    /// Whether every pixel comes out as it went in.
    pub const fn is_lossless(self) -> bool {
        matches!(self, Self::WebpLossless | Self::Png)
    }

    /// The longest side in pixels that a file of the format can have.
    pub(super) const fn max_side(self) -> u32 {
        match self {
            Self::Webp | Self::WebpLossless => 16_383,
            Self::Jpeg | Self::Avif => 65_535,
            Self::Png => i32::MAX as u32,
        }
    }

    /// The format called `name` in settings, in any case; `jpg` is JPEG too.
    pub fn parse(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("jpg") {
            return Some(Self::Jpeg);
        }
        Self::ALL.into_iter().find(|format| name.eq_ignore_ascii_case(format.setting()))
    }
}

/// The presets of an installation that sets none: `large` 2048 px JPEG, `medium` 1024 px and `small` 512 px WebP,
/// `thumb` 160 px JPEG, all by the longest edge at quality 80.
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
