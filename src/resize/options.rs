//! Options of a signed URL, such as `w=300,h=200,fit=cover,focus=top,dpr=2,format=webp,quality=75`.
//!
//! Parsing is strict. Equal options have one canonical name, so each variant is made once.

use crate::imaging::{Effort, Fit, Focus, OutputFormat, Preset, Size};

/// Maximum side in pixels, after `dpr`.
pub const MAX_SIDE: u32 = 4_096;

/// Describes a requested variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `w`: maximum width in pixels, before `dpr`.
    pub width: Option<u32>,
    /// `h`: maximum height in pixels, before `dpr`.
    pub height: Option<u32>,
    /// `fit` and `focus`: how the image fits the box.
    pub fit: Fit,
    /// `dpr` in tenths: factor of both sides, 1 to 4.
    pub ratio_tenths: u32,
    /// `format`; `None` for `auto`, which follows the client's `Accept` header.
    pub format: Option<OutputFormat>,
    /// `quality` of the lossy formats, 1 to 100.
    pub quality: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { width: None, height: None, fit: Fit::Contain, ratio_tenths: 10, format: None, quality: 80 }
    }
}

impl Options {
    /// Parses the options of a URL.
    ///
    /// # Errors
    /// A message that names the first option that is unknown, repeated or has an invalid value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let (mut fit, mut focus) = ("contain", None);
        let mut seen: Vec<&str> = Vec::new();
        for option in text.split(',') {
            let (name, value) = option.split_once('=').ok_or_else(|| format!("`{option}` is not NAME=VALUE"))?;
            if seen.contains(&name) {
                return Err(format!("`{name}` is given more than once"));
            }
            seen.push(name);
            match name {
                "w" => options.width = Some(number("w", value, 1, MAX_SIDE)?),
                "h" => options.height = Some(number("h", value, 1, MAX_SIDE)?),
                "fit" => fit = value,
                "focus" => focus = Some(parse_focus(value)?),
                "dpr" => options.ratio_tenths = parse_ratio(value)?,
                "format" => options.format = parse_format(value)?,
                "quality" => options.quality = u8::try_from(number("quality", value, 1, 100)?).unwrap_or(100),
                _ => {
                    return Err(format!("unknown option `{name}`; options are w, h, fit, focus, dpr, format, quality"));
                }
            }
        }
        if options.width.is_none() && options.height.is_none() {
            return Err("one of `w` and `h` is required".into());
        }
        options.fit = match (fit, focus) {
            ("contain", None) => Fit::Contain,
            ("cover", focus) => Fit::Cover(focus.unwrap_or(Focus::CENTER)),
            ("fill", None) => Fit::Fill,
            ("contain" | "fill", Some(_)) => return Err("`focus` requires fit=cover".into()),
            _ => return Err("`fit` must be contain, cover or fill".into()),
        };
        let longest = options.width.into_iter().chain(options.height).max().unwrap_or(0);
        if options.times_ratio(longest) > MAX_SIDE {
            return Err(format!("a side times `dpr` must be at most {MAX_SIDE}"));
        }
        Ok(options)
    }

    /// Returns the canonical name of the variant in `format`.
    pub fn name(&self, format: OutputFormat) -> String {
        let (width, height) = self.sides();
        let fit = match self.fit {
            Fit::Contain => "contain".to_owned(),
            Fit::Fill => "fill".to_owned(),
            Fit::Cover(focus) => {
                let (across, down) = focus.thousandths();
                format!("cover@{across}x{down}")
            }
        };
        let side = |side: Option<u32>| side.map_or_else(|| "-".to_owned(), |side| side.to_string());
        format!("{}x{} {fit} {} q{}", side(width), side(height), format.setting(), self.quality)
    }

    /// Returns the preset that makes the variant in `format`.
    pub fn preset(&self, format: OutputFormat) -> Preset {
        let (width, height) = self.sides();
        Preset {
            name: "resize".into(),
            size: Size::Box {
                width: width.unwrap_or(u32::from(u16::MAX)),
                height: height.unwrap_or(u32::from(u16::MAX)),
            },
            // Without both sides there is no shape to crop or stretch to.
            fit: if width.is_some() && height.is_some() { self.fit } else { Fit::Contain },
            formats: vec![format],
            quality: self.quality,
            effort: Effort::Fast,
        }
    }

    /// Returns the requested sides, in pixels of the variant.
    pub fn sides(&self) -> (Option<u32>, Option<u32>) {
        (self.width.map(|side| self.times_ratio(side)), self.height.map(|side| self.times_ratio(side)))
    }

    fn times_ratio(&self, side: u32) -> u32 {
        (side * self.ratio_tenths + 5) / 10
    }
}

fn number(name: &str, value: &str, least: u32, most: u32) -> Result<u32, String> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { value.parse().ok() } else { None };
    let number = number.filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("`{name}` must be a whole number from {least} to {most}"))
}

fn parse_ratio(value: &str) -> Result<u32, String> {
    let (whole, tenth) = value.split_once('.').unwrap_or((value, "0"));
    let tenths = match (whole.as_bytes(), tenth.as_bytes()) {
        ([whole @ b'1'..=b'4'], [tenth @ b'0'..=b'9']) => u32::from(whole - b'0') * 10 + u32::from(tenth - b'0'),
        _ => 0,
    };
    if (10..=40).contains(&tenths) { Ok(tenths) } else { Err("`dpr` must be a number from 1 to 4, such as 1.5".into()) }
}

fn parse_format(value: &str) -> Result<Option<OutputFormat>, String> {
    if value == "auto" {
        return Ok(None);
    }
    let known = OutputFormat::ALL.into_iter().filter(|format| format.is_built_in());
    let names: Vec<_> = known.clone().map(OutputFormat::setting).collect();
    let found = known.into_iter().find(|format| format.setting() == value);
    found.map(Some).ok_or_else(|| format!("`format` must be auto or one of {}", names.join(", ")))
}

/// Parses `top`, `bottom-left`, or `30x70`: percent from the left and from the top.
fn parse_focus(value: &str) -> Result<Focus, String> {
    let hundredths = |text: &str| number("focus", text, 0, 100).ok().and_then(|share| u16::try_from(share * 10).ok());
    let point = value.split_once('x').and_then(|(across, down)| hundredths(across).zip(hundredths(down)));
    let point = point.and_then(|(across, down)| Focus::from_thousandths(across, down));
    point.or_else(|| Focus::named(value)).ok_or_else(|| {
        "`focus` must be center, an edge or a corner such as top-left, or two percentages such as 30x70".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_options_have_the_same_name() {
        let name = |text: &str| Options::parse(text).expect(text).name(OutputFormat::Webp);
        assert_eq!(name("w=300"), "300x- contain webp q80");
        assert_eq!(name("w=150,dpr=2"), name("dpr=2.0,w=150,quality=80,fit=contain,format=auto"));
        assert_eq!(name("w=300,h=200,fit=cover"), name("h=200,w=300,fit=cover,focus=center"));
        assert_ne!(name("w=300,h=200,fit=cover,focus=top"), name("w=300,h=200,fit=cover"));
        assert_eq!(name("h=100,w=10,fit=cover,focus=50x0"), name("h=100,w=10,fit=cover,focus=top"));
    }

    #[test]
    fn an_error_names_the_invalid_option() {
        for (text, part) in [
            ("", "NAME=VALUE"),
            ("fit=cover", "one of `w` and `h`"),
            ("w=0", "`w`"),
            ("w=4097", "`w`"),
            ("w=+3", "`w`"),
            ("w=3,w=3", "more than once"),
            ("w=3000,dpr=2", "times `dpr`"),
            ("w=3,dpr=5", "`dpr`"),
            ("w=3,dpr=1.55", "`dpr`"),
            ("w=3,dpr=4.1", "`dpr`"),
            ("w=3,quality=101", "`quality`"),
            ("w=3,format=bmp", "`format`"),
            ("w=3,fit=inside", "`fit`"),
            ("w=3,focus=top", "fit=cover"),
            ("w=3,fit=cover,focus=101x0", "`focus`"),
            ("w=3,blur=1", "`blur`"),
            ("w=3,", "NAME=VALUE"),
        ] {
            let message = Options::parse(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn an_image_is_not_cropped_without_both_sides() {
        let preset = Options::parse("w=300,fit=cover").expect("options").preset(OutputFormat::Jpeg);
        assert_eq!(preset.fit, Fit::Contain);
    }
}
