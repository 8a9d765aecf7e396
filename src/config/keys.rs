//! The declaration of every setting: names, default, allowed values and description.
//!
//! `config.default.toml` and `docs/CONFIG.md` are generated from it, which a test checks.

mod components;
mod images;
mod logs;
mod presets;
#[cfg(test)]
mod reference;
mod server;

/// A setting.
#[derive(Debug)]
pub(super) struct Key {
    /// The name in a file.
    pub name: &'static str,
    /// The names in the environment; the first one set takes precedence.
    pub environment: &'static [&'static str],
    /// The default as text, as in the environment; tables are in TOML. Empty if there is none.
    pub default: &'static str,
    /// The description, in Markdown.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests write docs/CONFIG.md and config.default.toml from it"))]
    pub doc: &'static str,
    /// The allowed values; completes the sentence "allowed is …".
    pub allowed: &'static str,
    /// The flag, if any.
    pub flag: Option<Flag>,
    /// Whether a file may set it.
    pub in_files: bool,
    /// Whether the value may contain a password; messages then omit it.
    pub secret: bool,
    /// Whether it is a duration or a size; `pm config` prints these as they were set.
    pub measure: bool,
}

/// A flag that sets a setting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// The name, such as `--listen`.
    pub name: &'static str,
    /// The command that has it; `None` if all have it.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests write docs/CONFIG.md and config.default.toml from it"))]
    pub command: Option<&'static str>,
}

/// The settings of a part of the program.
pub(super) struct Section {
    /// The heading in files and documents.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests write docs/CONFIG.md and config.default.toml from it"))]
    pub title: &'static str,
    /// The settings.
    pub keys: &'static [Key],
}

/// All settings, in the order of `config.default.toml`.
pub(super) const SECTIONS: [Section; 5] = [
    Section { title: "Components", keys: components::KEYS },
    Section { title: "Server", keys: server::KEYS },
    Section { title: "Images", keys: images::KEYS },
    Section { title: "Logs", keys: logs::KEYS },
    Section { title: "Presets", keys: presets::KEYS },
];

impl Key {
    const fn new(name: &'static str, environment: &'static [&'static str], default: &'static str) -> Self {
        Self {
            name,
            environment,
            default,
            doc: "",
            allowed: "",
            flag: None,
            in_files: true,
            secret: false,
            measure: false,
        }
    }

    const fn doc(self, doc: &'static str) -> Self {
        Self { doc, ..self }
    }

    const fn allowed(self, allowed: &'static str) -> Self {
        Self { allowed, ..self }
    }

    const fn flag(self, name: &'static str, command: Option<&'static str>) -> Self {
        Self { flag: Some(Flag { name, command }), ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    const fn measure(self) -> Self {
        Self { measure: true, ..self }
    }

    const fn environment_only(self) -> Self {
        Self { in_files: false, ..self }
    }

    /// Returns all settings.
    pub(super) fn all() -> impl Iterator<Item = &'static Self> {
        SECTIONS.iter().flat_map(|section| section.keys)
    }

    /// Returns the settings that a file may set.
    pub(super) fn of_files() -> impl Iterator<Item = &'static Self> {
        Self::all().filter(|key| key.in_files)
    }

    /// Returns the setting with this name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        Self::all().find(|key| key.name == name)
    }
}
