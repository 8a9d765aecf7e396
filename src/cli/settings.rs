//! `pm config`: shows the effective settings and the source of each.

use serde::Serialize;

use super::{
    failure::{Exit, Failure},
    output::{Console, Row},
};
use crate::config::Settings;

/// Runs the command.
pub(super) fn run(settings: &Settings, console: &mut Console) -> Result<Exit, Failure> {
    let rows: Vec<_> = settings
        .entries()
        .into_iter()
        .map(|(setting, value, source)| SettingRow { setting, value, source: source.to_string() })
        .collect();
    let mut list = console.list();
    list.page(&rows)?;
    list.finish(None)?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct SettingRow {
    setting: &'static str,
    value: String,
    source: String,
}

impl Row for SettingRow {
    const COLUMNS: &'static [&'static str] = &["setting", "value", "from"];
    const FIELDS: &'static [&'static str] = &["setting", "value", "source"];

    fn id(&self) -> String {
        self.setting.into()
    }

    fn cells(&self) -> Vec<String> {
        self.fields()
    }

    fn fields(&self) -> Vec<String> {
        vec![self.setting.into(), self.value.clone(), self.source.clone()]
    }
}
