//! Writes `config.default.toml` and `docs/CONFIG.md`, and checks that both are up to date.

use std::path::Path;

use super::{Key, SECTIONS};

/// Columns of a line.
const WIDTH: usize = 120;

const FILE_INTRODUCTION: &str = "\
# All settings with their defaults. A `pm.toml` in the working directory (or the file given by `--config`) has the same
# keys and contains only the settings that differ. `.env`, the environment and flags override it, in this order.
# An empty string means \"not set\". `{data_dir}` in a URL is replaced by the data directory. docs/CONFIG.md has the
# names in the environment and of flags.
";

const DOCUMENT_INTRODUCTION: &str = "\
# Settings

All settings with their defaults. Later layers override earlier ones: defaults, `pm.toml` in the working directory (or the
file given by `--config`), `.env`, the environment, flags. An empty value resets a setting to its default. `pm config`
prints each setting with its value and layer. Every secret can also be read from a file: `NAME_FILE` in the environment
contains its path. `{data_dir}` in a URL is replaced by the data directory.
";

/// Breaks text into lines of at most `width` columns.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn is_table(key: &Key) -> bool {
    key.default.contains('\n')
}

/// Writes a table as a file has it: with the setting's name in its headings.
fn in_file(key: &Key) -> String {
    let heading = format!("[{}.", key.name);
    key.default
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix('[').map_or(line.into(), |name| format!("{heading}{name}"))))
        .collect()
}

/// Writes a setting with its default in TOML; numbers, booleans and lists are not quoted.
fn assignment(key: &Key) -> String {
    let default = key.default;
    if is_table(key) {
        return format!("\n{}", in_file(key));
    }
    let bare = default.parse::<u64>().is_ok() || ["true", "false", "[]"].contains(&default);
    if bare { format!("{} = {default}\n", key.name) } else { format!("{} = \"{default}\"\n", key.name) }
}

fn settings_file() -> String {
    let mut file = FILE_INTRODUCTION.to_owned();
    for section in SECTIONS {
        file += &format!("\n# --- {} {}\n", section.title, "-".repeat(WIDTH - 7 - section.title.len()));
        for key in section.keys.iter().filter(|key| key.in_files) {
            file += &format!("\n# {}\n{}", wrap(key.doc, WIDTH - 2).join("\n# "), assignment(key));
        }
    }
    file
}

/// Returns the ways to set a setting: environment, flag and file.
fn names(key: &Key) -> String {
    let variables: Vec<_> = key.environment.iter().map(|name| format!("`{name}`")).collect();
    let mut names = format!("Environment {}", variables.join(" or "));
    if let Some(flag) = &key.flag {
        names += &format!("; flag `{}`", flag.name);
        names += &flag.command.map(|command| format!(" of `pm {command}`")).unwrap_or_default();
    }
    if !key.in_files {
        names += "; not in files";
    }
    names
}

fn default(key: &Key) -> String {
    match key.default {
        "" | "[]" => "none".to_owned(),
        _ if is_table(key) => format!("\n\n```toml\n{}```", in_file(key)),
        text => format!("`{text}`"),
    }
}

fn document() -> String {
    let mut document = DOCUMENT_INTRODUCTION.to_owned();
    for section in SECTIONS {
        document += &format!("\n## {}\n", section.title);
        for key in section.keys {
            document += &format!("\n### `{}`\n\n{}\n\n", key.name, wrap(key.doc, WIDTH).join("\n"));
            document += &format!("- {}\n", names(key));
            document +=
                &format!("- Allowed: {}\n- Default: {}\n", wrap(key.allowed, WIDTH - 11).join("\n  "), default(key));
        }
    }
    document
}

#[test]
fn files_about_settings_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, expected) in [("config.default.toml", settings_file()), ("docs/CONFIG.md", document())] {
        let path = root.join(name);
        if std::env::var_os("PM_TEST_UPDATE").is_some() {
            std::fs::write(&path, &expected).expect("a writable file");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "{name} is out of date; run PM_TEST_UPDATE=1 cargo test --lib config::keys");
    }
}

#[test]
fn names_of_settings_are_unique_and_described() {
    let mut names = std::collections::HashSet::new();
    for key in Key::all() {
        assert!(names.insert(key.name), "{} is declared twice", key.name);
        for variable in key.environment {
            assert!(names.insert(variable), "{variable} is declared twice");
        }
        assert!(!key.doc.is_empty() && !key.allowed.is_empty(), "{} has no description", key.name);
    }
}
