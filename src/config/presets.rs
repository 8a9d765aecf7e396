//! Reads the table of presets: what is made of every picture.

use figment::value::{Dict, Value};

use super::layers::{Raw, parse_toml, scalar};
use crate::imaging::{Effort, Fit, OutputFormat, Preset, Size};

/// The longest side of a rendition in pixels, which WebP sets.
const MAX_SIDE: u32 = 16_383;
/// More presets than this are more likely a mistake than a wish.
const MAX_PRESETS: usize = 32;
const DEFAULT_QUALITY: u8 = 80;
const KNOWN: [&str; 6] = ["edge", "width", "height", "fit", "formats", "quality"];

/// The presets of a table, or of a text that holds one (`large = { edge = 2048 }`), largest first.
pub(super) fn parse(raw: &Raw) -> Result<Vec<Preset>, String> {
    let table = match raw {
        Raw::Table(table) => table.clone(),
        Raw::Text(text) => parse_toml(text)?,
    };
    if table.is_empty() || table.len() > MAX_PRESETS {
        return Err(format!("has {} presets; from 1 to {MAX_PRESETS} are possible", table.len()));
    }
    let mut presets: Vec<_> = table.iter().map(|(name, value)| preset(name, value)).collect::<Result<_, _>>()?;
    presets.sort_by_key(|preset| std::cmp::Reverse(longest_side(preset.size)));
    Ok(presets)
}

fn longest_side(size: Size) -> u32 {
    match size {
        Size::LongestEdge(edge) => edge,
        Size::Box { width, height } => width.max(height),
    }
}

fn preset(name: &str, value: &Value) -> Result<Preset, String> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if !plain || !(1..=32).contains(&name.len()) {
        return Err(format!("has a preset `{name}`; a name has 1 to 32 of a-z, 0-9, `-` and `_`"));
    }
    let Value::Dict(_, table) = value else { return Err(format!("has a preset `{name}` that is no table")) };
    fields(name, table).map_err(|reason| format!("has a preset `{name}` whose {reason}"))
}

fn fields(name: &str, table: &Dict) -> Result<Preset, String> {
    if let Some(field) = table.keys().find(|field| !KNOWN.contains(&field.as_str())) {
        return Err(format!("`{field}` is unknown; known are {}", KNOWN.join(", ")));
    }
    let size = match (side(table, "edge")?, side(table, "width")?, side(table, "height")?) {
        (Some(edge), None, None) => Size::LongestEdge(edge),
        (None, Some(width), Some(height)) => Size::Box { width, height },
        _ => return Err("size is not given by `edge` alone or by `width` and `height`".into()),
    };
    let fit = match text(table, "fit")?.as_deref() {
        None | Some("contain") => Fit::Contain,
        Some("cover") if matches!(size, Size::Box { .. }) => Fit::Cover,
        Some("cover") => return Err("`fit` is `cover`, which needs `width` and `height`".into()),
        Some(_) => return Err("`fit` is neither `contain` nor `cover`".into()),
    };
    let quality = match text(table, "quality")? {
        None => DEFAULT_QUALITY,
        Some(text) => text
            .parse()
            .ok()
            .filter(|quality| (1..=100).contains(quality))
            .ok_or("`quality` is no number from 1 to 100")?,
    };
    Ok(Preset { name: name.to_owned(), size, fit, formats: formats(table)?, quality, effort: Effort::Balanced })
}

fn formats(table: &Dict) -> Result<Vec<OutputFormat>, String> {
    const WRONG: &str = "`formats` is no list of jpeg, webp, png";
    let mut formats = Vec::new();
    match table.get("formats") {
        None => formats.push(OutputFormat::Jpeg),
        Some(Value::Array(_, items)) => {
            for item in items {
                let format = item.as_str().and_then(OutputFormat::parse).ok_or(WRONG)?;
                if formats.contains(&format) {
                    return Err(format!("`formats` has {} twice", format.as_str()));
                }
                formats.push(format);
            }
        }
        Some(single) => formats.push(single.as_str().and_then(OutputFormat::parse).ok_or(WRONG)?),
    }
    if formats.is_empty() { Err(WRONG.into()) } else { Ok(formats) }
}

fn side(table: &Dict, field: &str) -> Result<Option<u32>, String> {
    let Some(text) = text(table, field)? else { return Ok(None) };
    let pixels = text.parse().ok().filter(|pixels| (1..=MAX_SIDE).contains(pixels));
    pixels.map(Some).ok_or_else(|| format!("`{field}` is no number of pixels from 1 to {MAX_SIDE}"))
}

fn text(table: &Dict, field: &str) -> Result<Option<String>, String> {
    let Some(value) = table.get(field) else { return Ok(None) };
    scalar(value).map(Some).ok_or_else(|| format!("`{field}` is neither a text nor a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Preset>, String> {
        parse(&Raw::Text(text.into()))
    }

    #[test]
    fn presets_are_sorted_from_the_largest() {
        let text = r#"a = { edge = 100 }
            b = { width = 800, height = 600, fit = "cover", formats = ["webp", "jpeg"], quality = 70 }"#;
        let presets = parsed(text).expect("two presets");
        assert_eq!(presets[0].name, "b");
        assert_eq!(presets[0].size, Size::Box { width: 800, height: 600 });
        assert_eq!(presets[0].formats, [OutputFormat::Webp, OutputFormat::Jpeg]);
        assert_eq!((presets[0].fit, presets[0].quality), (Fit::Cover, 70));
        assert_eq!((presets[1].fit, presets[1].quality), (Fit::Contain, 80));
    }

    #[test]
    fn a_wrong_preset_is_named_with_its_field() {
        for (text, part) in [
            ("a = { edge = 0 }", "`edge`"),
            ("a = { edge = 10, width = 10 }", "size"),
            ("a = { width = 10 }", "size"),
            ("a = { edge = 10, fit = 'cover' }", "cover"),
            ("a = { edge = 10, quality = 101 }", "`quality`"),
            ("a = { edge = 10, formats = ['gif'] }", "`formats`"),
            ("a = { edge = 10, formats = [] }", "`formats`"),
            ("a = { edge = 10, colour = 'red' }", "`colour`"),
            ("'A b' = { edge = 10 }", "A b"),
            ("a = 3", "no table"),
            ("", "0 presets"),
            ("a = {", "TOML"),
        ] {
            let reason = parsed(text).expect_err(text);
            assert!(reason.contains(part), "{text}: {reason}");
        }
    }

    #[test]
    fn the_built_in_table_is_what_imaging_makes_without_settings() {
        let defaults = parse_toml(include_str!("../../config.default.toml")).expect("valid TOML");
        let Some(Value::Dict(_, table)) = defaults.get("presets") else { panic!("no presets") };
        assert_eq!(parse(&Raw::Table(table.clone())), Ok(crate::imaging::default_presets()));
    }
}
