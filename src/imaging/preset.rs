//! What to make of a picture: the presets, and the formats that go out.

/// A size to make of every picture, in one or more formats.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Effort {
    /// The least time that still gives a good picture.
    Fast,
    /// The best use of time.
    #[default]
    Balanced,
    /// As few bytes as possible, whatever the time.
    Small,
}

/// The bounds of a rendition, in pixels. A picture is never enlarged to reach them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How a picture whose shape is not that of the box meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The whole picture, inside the box.
    Contain,
    /// The middle of the picture, cut to the shape of the box. Without a box, the same as `Contain`.
    Cover,
}

/// A format that renditions are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// Baseline JPEG, 4:2:0; transparency is laid on white.
    Jpeg,
    /// Lossy WebP, with transparency.
    Webp,
    /// PNG, with transparency.
    Png,
}

impl OutputFormat {
    /// The name in settings and answers: `jpeg`, `webp`, `png`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
            Self::Png => "png",
        }
    }

    /// The ending of a file's name, without its dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
            Self::Png => "png",
        }
    }

    /// The value of `Content-Type`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
            Self::Png => "image/png",
        }
    }

    /// The format called `name`, in any case; `jpg` is JPEG too.
    pub fn parse(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match () {
            () if is("jpeg") || is("jpg") => Some(Self::Jpeg),
            () if is("webp") => Some(Self::Webp),
            () if is("png") => Some(Self::Png),
            () => None,
        }
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
