//! Reads the table of presets; each defines renditions of every image.

use toml::{Table, Value};

use super::{
    layers::{Raw, parse_toml, scalar},
    resolve::Resolver,
    values,
};
use crate::imaging::{Effort, Fit, Focus, OutputFormat, Preset, Size};

/// Maximum side of a rendition in pixels; WebP's limit.
const MAX_SIDE: u32 = 16_383;
/// Maximum number of presets.
const MAX_PRESETS: usize = 32;
const DEFAULT_QUALITY: u8 = 80;
/// Reserved name: the URL of an uploaded original ends with it instead of a preset's name.
const RESERVED: &str = "original";
const KNOWN: [&str; 8] = ["edge", "width", "height", "fit", "focus", "formats", "quality", "effort"];

/// Reads the default effort and the presets.
pub(super) fn resolve(resolver: &mut Resolver<'_>) -> (Option<Effort>, Option<Vec<Preset>>) {
    let effort = resolver.take("image_effort", values::effort);
    let presets = resolver.take_raw("presets", |raw| parse(raw, effort.unwrap_or_default()));
    (effort, presets)
}

/// Parses presets from a table or from TOML text (`large = { edge = 2048 }`), largest first.
///
/// `effort` is the default of presets without their own.
fn parse(raw: &Raw, effort: Effort) -> Result<Vec<Preset>, String> {
    let table = match raw {
        Raw::Table(table) => table.clone(),
        Raw::Text(text) => parse_toml(text)?,
    };
    if table.is_empty() || table.len() > MAX_PRESETS {
        return Err(format!("has {} presets; allowed are 1 to {MAX_PRESETS}", table.len()));
    }
    let presets: Result<Vec<_>, _> = table.iter().map(|(name, value)| preset(name, value, effort)).collect();
    let mut presets = presets?;
    presets.sort_by_key(|preset| std::cmp::Reverse(longest_side(preset.size)));
    Ok(presets)
}

fn longest_side(size: Size) -> u32 {
    match size {
        Size::LongestEdge(edge) => edge,
        Size::Box { width, height } => width.max(height),
    }
}

fn preset(name: &str, value: &Value, effort: Effort) -> Result<Preset, String> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if !plain || !(1..=32).contains(&name.len()) {
        return Err(format!("has a preset `{name}`; a name has 1 to 32 of a-z, 0-9, `-` and `_`"));
    }
    if name == RESERVED {
        return Err(format!("has a preset `{name}`, a name reserved for uploaded files; use another name"));
    }
    let Value::Table(table) = value else { return Err(format!("has a preset `{name}` that is no table")) };
    fields(name, table, effort).map_err(|reason| format!("has a preset `{name}` whose {reason}"))
}

fn fields(name: &str, table: &Table, effort: Effort) -> Result<Preset, String> {
    if let Some(field) = table.keys().find(|field| !KNOWN.contains(&field.as_str())) {
        return Err(format!("`{field}` is unknown; known are {}", KNOWN.join(", ")));
    }
    let size = match (side(table, "edge")?, side(table, "width")?, side(table, "height")?) {
        (Some(edge), None, None) => Size::LongestEdge(edge),
        (None, Some(width), Some(height)) => Size::Box { width, height },
        _ => return Err("size is invalid: set either `edge`, or both `width` and `height`".into()),
    };
    let fit = fit(table, size)?;
    let quality = match text(table, "quality")? {
        None => DEFAULT_QUALITY,
        Some(text) => text
            .parse()
            .ok()
            .filter(|quality| (1..=100).contains(quality))
            .ok_or("`quality` is not a number from 1 to 100")?,
    };
    let effort = match text(table, "effort")? {
        None => effort,
        Some(text) => Effort::parse(&text).ok_or("`effort` is not one of fast, balanced, small")?,
    };
    Ok(Preset { name: name.to_owned(), size, fit, formats: formats(table)?, quality, effort })
}

fn fit(table: &Table, size: Size) -> Result<Fit, String> {
    let boxed = matches!(size, Size::Box { .. });
    let fit = match text(table, "fit")?.as_deref() {
        None | Some("contain") => Fit::Contain,
        Some("cover") if boxed => Fit::Cover(focus(table)?),
        Some("fill") if boxed => Fit::Fill,
        Some(fit @ ("cover" | "fill")) => return Err(format!("`fit` is `{fit}`, which needs `width` and `height`")),
        Some(_) => return Err("`fit` is not one of contain, cover, fill".into()),
    };
    if table.contains_key("focus") && !matches!(fit, Fit::Cover(_)) {
        return Err("`focus` is set, but only `fit` = `cover` uses it".into());
    }
    Ok(fit)
}

/// Parses the focal point: a name, or fractions of width and height.
fn focus(table: &Table) -> Result<Focus, String> {
    const WRONG: &str = "`focus` is neither two numbers from 0 to 1, across and down, nor one of center, top, bottom, \
        left, right, top-left, top-right, bottom-left, bottom-right";
    let found = match table.get("focus") {
        None => Some(Focus::CENTER),
        Some(Value::String(name)) => Focus::named(name),
        Some(Value::Array(shares)) => match &shares[..] {
            [across, down] => thousandths(across)
                .zip(thousandths(down))
                .and_then(|(across, down)| Focus::from_thousandths(across, down)),
            _ => None,
        },
        Some(_) => None,
    };
    found.ok_or_else(|| WRONG.to_owned())
}

/// Converts a fraction from 0 to 1 to thousandths.
fn thousandths(share: &Value) -> Option<u16> {
    let share = match share {
        Value::Float(share) => *share,
        Value::Integer(share) => u8::try_from(*share).ok()?.into(),
        _ => return None,
    };
    (0.0..=1.0).contains(&share).then(|| (share * 1000.0).round() as u16)
}

fn formats(table: &Table) -> Result<Vec<OutputFormat>, String> {
    let mut formats: Vec<OutputFormat> = Vec::new();
    let items = match table.get("formats") {
        None => return Ok(vec![OutputFormat::Jpeg]),
        Some(Value::Array(items)) => &items[..],
        Some(single) => std::slice::from_ref(single),
    };
    for item in items {
        let format = format(item)?;
        if let Some(other) = formats.iter().find(|other| other.media_type() == format.media_type()) {
            let (format, other, both) = (format.setting(), other.setting(), format.media_type());
            return Err(format!("`formats` has {other} and {format}, which are both {both}; list one of them"));
        }
        formats.push(format);
    }
    if formats.is_empty() { Err("`formats` is empty".into()) } else { Ok(formats) }
}

fn format(item: &Value) -> Result<OutputFormat, String> {
    let Some(format) = item.as_str().and_then(OutputFormat::parse) else {
        let all = OutputFormat::ALL.map(OutputFormat::setting).join(", ");
        return Err(format!("`formats` is not a list of {all}"));
    };
    if !format.is_built_in() {
        return Err(format!("`formats` has {0}, which this build lacks (cargo feature `{0}`)", format.setting()));
    }
    Ok(format)
}

fn side(table: &Table, field: &str) -> Result<Option<u32>, String> {
    let Some(text) = text(table, field)? else { return Ok(None) };
    let pixels = text.parse().ok().filter(|pixels| (1..=MAX_SIDE).contains(pixels));
    pixels.map(Some).ok_or_else(|| format!("`{field}` is not a number of pixels from 1 to {MAX_SIDE}"))
}

fn text(table: &Table, field: &str) -> Result<Option<String>, String> {
    let Some(value) = table.get(field) else { return Ok(None) };
    scalar(value).map(Some).ok_or_else(|| format!("`{field}` is neither text nor a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::Key;

    fn parsed(text: &str) -> Result<Vec<Preset>, String> {
        parse(&Raw::Text(text.into()), Effort::Balanced)
    }

    fn fit_of(rest: &str) -> Fit {
        parsed(&format!("a = {{ width = 4, height = 3, {rest} }}")).expect(rest)[0].fit
    }

    #[test]
    fn a_fit_is_read_with_its_focus() {
        assert_eq!(fit_of("fit = 'contain'"), Fit::Contain);
        assert_eq!(fit_of("fit = 'fill'"), Fit::Fill);
        assert_eq!(fit_of("fit = 'cover'"), Fit::Cover(Focus::CENTER));
        let named = |name: &str| fit_of(&format!("fit = 'cover', focus = '{name}'"));
        let point = |across, down| Fit::Cover(Focus::from_thousandths(across, down).expect("a point of the image"));
        assert_eq!(named("top"), point(500, 0));
        assert_eq!(named("right"), point(1000, 500));
        assert_eq!(named("bottom-left"), point(0, 1000));
        assert_eq!(fit_of("fit = 'cover', focus = [0.5, 0.333]"), point(500, 333));
        assert_eq!(fit_of("fit = 'cover', focus = [1, 0]"), point(1000, 0));
    }

    #[test]
    fn a_preset_without_an_effort_has_the_default_effort() {
        let text = "a = { edge = 10, effort = 'small' }\nb = { edge = 9 }";
        let presets = parse(&Raw::Text(text.into()), Effort::Fast).expect("two presets");
        assert_eq!((presets[0].effort, presets[1].effort), (Effort::Small, Effort::Fast));
    }

    #[test]
    fn every_format_is_parsed_from_its_name() {
        for format in OutputFormat::ALL.into_iter().filter(|format| format.is_built_in()) {
            let presets = parsed(&format!("a = {{ edge = 10, formats = '{}' }}", format.setting()));
            assert_eq!(presets.expect("a preset")[0].formats, [format]);
        }
    }

    #[test]
    fn presets_are_sorted_from_the_largest() {
        let text = r#"a = { edge = 100 }
            b = { width = 800, height = 600, fit = "cover", formats = ["webp", "jpeg"], quality = 70 }"#;
        let presets = parsed(text).expect("two presets");
        assert_eq!(presets[0].name, "b");
        assert_eq!(presets[0].size, Size::Box { width: 800, height: 600 });
        assert_eq!(presets[0].formats, [OutputFormat::Webp, OutputFormat::Jpeg]);
        assert_eq!((presets[0].fit, presets[0].quality), (Fit::Cover(Focus::CENTER), 70));
        assert_eq!((presets[1].fit, presets[1].quality), (Fit::Contain, 80));
    }

    #[test]
    fn a_wrong_preset_is_named_with_its_field() {
        for (text, part) in [
            ("a = { edge = 0 }", "`edge`"),
            ("a = { edge = 10, width = 10 }", "size"),
            ("a = { width = 10 }", "size"),
            ("a = { edge = 10, fit = 'cover' }", "cover"),
            ("a = { edge = 10, fit = 'fill' }", "fill"),
            ("a = { edge = 10, fit = 'crop' }", "`fit`"),
            ("a = { edge = 10, focus = 'top' }", "`focus`"),
            ("a = { width = 9, height = 9, fit = 'fill', focus = 'top' }", "`focus`"),
            ("a = { width = 9, height = 9, fit = 'cover', focus = 'upper' }", "`focus`"),
            ("a = { width = 9, height = 9, fit = 'cover', focus = [0.5] }", "`focus`"),
            ("a = { width = 9, height = 9, fit = 'cover', focus = [0.5, 1.01] }", "`focus`"),
            ("a = { width = 9, height = 9, fit = 'cover', focus = [0.5, 'top'] }", "`focus`"),
            ("a = { width = 9, height = 9, fit = 'cover', focus = [0.5, nan] }", "`focus`"),
            ("a = { width = 9, height = 9, fit = 'cover', focus = 0.5 }", "`focus`"),
            ("a = { edge = 10, effort = 'most' }", "`effort`"),
            ("a = { edge = 10, formats = ['webp', 'webp-lossless'] }", "image/webp"),
            ("a = { edge = 10, formats = ['jpg', 'jpeg'] }", "image/jpeg"),
            ("a = { edge = 10, quality = 101 }", "`quality`"),
            ("a = { edge = 10, formats = ['gif'] }", "`formats`"),
            ("a = { edge = 10, formats = [] }", "`formats`"),
            ("a = { edge = 10, colour = 'red' }", "`colour`"),
            ("'A b' = { edge = 10 }", "A b"),
            ("original = { edge = 10 }", "uploaded files"),
            ("a = 3", "no table"),
            ("", "0 presets"),
            ("a = {", "TOML"),
        ] {
            let reason = parsed(text).expect_err(text);
            assert!(reason.contains(part), "{text}: {reason}");
        }
    }

    #[test]
    fn the_default_table_equals_the_default_presets_of_imaging() {
        let default = Key::find("presets").expect("a setting").default;
        assert_eq!(parsed(default), Ok(crate::imaging::default_presets()));
    }
}
