//! Finds words that the project replaced by a standard term. Splits identifiers, comments and text into words.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Replaced words and the terms to use.
pub const REPLACED: &[(&str, &str)] = &[
    ("picture", "image"),
    ("pictures", "images"),
    ("told", "what was printed, sent or received"),
    ("grave", "dead-letter cursor"),
    ("graves", "dead letters"),
    ("herald", "event notifier"),
    ("happenings", "event signals"),
    ("seat", "connection slot"),
    ("seats", "connection slots"),
    ("lifeline", "connection"),
    ("autopsy", "exit reason"),
    ("finisher", "response encoder"),
    ("anew", "again, restart, requeue"),
    ("patience", "timeout"),
    ("whoever", "the client, the user, the process"),
    ("figures", "measurements, metrics, values"),
    ("nonsense", "invalid, protocol error"),
    ("hostage", "occupied worker"),
    ("hostages", "occupied workers"),
    ("starve", "block"),
    ("blows", "faults"),
    ("fared", "result"),
    ("catalogue", "catalog"),
    ("catalogues", "catalogs"),
    ("licence", "license"),
    ("cancelled", "canceled"),
    ("behaviour", "behavior"),
];

/// Files that may contain replaced words: this list, peers' and libraries' types, and frozen SQL.
const EXCEPTIONS: &[&str] = &[
    "tests/architecture",
    "migration/src",
    "src/imaging/webp/encoder.rs",
    "src/imaging/avif/decoder.rs",
    // Unknown words in requests of tests.
    "tests/it/api/bad_input.rs",
];

/// Names of libraries' functions in British spelling.
const LIBRARIES: &[&str] = &[".cancelled()", ".cancelled_owned()", ".is_cancelled()"];

const FOLDERS: &[&str] =
    &["src", "bin", "migration/src", "tests", "benches", "examples", "scripts", "docs", "deploy", ".github"];
const EXTENSIONS: &[&str] = &["rs", "md", "toml", "sh", "py", "mjs", "ts", "yml", "service", ""];

/// Returns each replaced word in the project's texts, with its file and line.
pub fn replaced_words(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files);
    }
    for entry in fs::read_dir(root).expect("the project").flatten() {
        files.extend(Some(entry.path()).filter(|path| path.is_file() && has_text(path)));
    }
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).expect("below the project").display().to_string();
        if EXCEPTIONS.iter().any(|exception| name.starts_with(exception)) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            found.extend(in_line(line).map(|(was, is)| format!("{name}:{}: `{was}`: use {is}", number + 1)));
        }
    }
    found
}

/// Returns the replaced words of a line.
pub fn in_line(line: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = LIBRARIES.iter().fold(line.to_owned(), |line, name| line.replace(name, ""));
    let words = words(&own);
    REPLACED.iter().copied().filter(move |(was, _)| words.iter().any(|word| word == was))
}

/// Splits text into lower-case words, also inside identifiers: `EventHerald` and `event_herald` have two.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut previous = ' ';
    for letter in text.chars() {
        let starts = letter.is_uppercase() && previous.is_lowercase();
        if (starts || !letter.is_alphabetic()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if letter.is_alphabetic() {
            words.last_mut().expect("never empty").extend(letter.to_lowercase());
        }
        previous = letter;
    }
    words
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if has_text(&path) {
            files.push(path);
        }
    }
}

fn has_text(path: &Path) -> bool {
    EXTENSIONS.contains(&path.extension().and_then(|extension| extension.to_str()).unwrap_or_default())
}
