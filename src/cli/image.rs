//! `pm image link`: signed addresses of pictures in any size.

use super::{
    args::{Image, ImageLink},
    failure::{Exit, Failure},
    output::Console,
};
use crate::{app::App, jobs::ResizeOptions};

/// Runs the command.
pub(super) fn run(command: Image, app: &App, console: &mut Console) -> Result<Exit, Failure> {
    let Image::Link(link) = command;
    let options = options_of(&link);
    ResizeOptions::parse(&options).map_err(|message| Failure::new(Exit::Usage, message))?;
    let keys = app.url_keys.as_ref().ok_or_else(|| {
        let failure = Failure::new(Exit::Usage, "no key for addresses is set");
        failure.hint("set PM_URL_KEY to 32 characters or more, the same for every process")
    })?;
    let signature = keys.sign(&options, &link.id.to_string());
    console.line(&app.catalog.links().resize(&signature, &options, link.id))?;
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
