//! `pm image link`: prints signed URLs of variants.

use super::{
    args::{Image, ImageLink},
    failure::{Exit, Failure},
    output::Console,
};
use crate::{app::App, domain::ImageId};

/// Runs the command.
pub(super) fn run(command: Image, app: &App, console: &mut Console) -> Result<Exit, Failure> {
    let Image::Link(link) = command;
    let options = options_of(&link);
    let address = app.signed_address(ImageId(link.id), &options).map_err(|message| {
        let failure = Failure::new(Exit::Usage, message);
        if app.url_keys.is_some() {
            return failure;
        }
        failure.hint("set PM_URL_KEY to at least 32 characters, with the same value in every process")
    })?;
    console.line(&address)?;
    Ok(Exit::Done)
}

fn options_of(link: &ImageLink) -> String {
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let all = [
        ("w", number(link.width)),
        ("h", number(link.height)),
        ("fit", link.fit.clone()),
        ("focus", link.focus.clone()),
        ("dpr", link.dpr.clone()),
        ("format", link.format.clone()),
        ("quality", number(link.quality)),
    ];
    let given = all.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}")));
    given.collect::<Vec<_>>().join(",")
}
