//! Reads secrets from files: `NAME_FILE` contains the path of a file with the value of `NAME`.

use std::{collections::BTreeMap, fs, path::Path};

use super::{Key, Problem, Source};

/// Secrets that the S3 client reads itself.
const OF_THE_STORE: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
const SUFFIX: &str = "_FILE";
/// Maximum size of a secret file.
const MAX_BYTES: u64 = 64 << 10;

/// Replaces each `NAME_FILE` in `variables` by `NAME` with the file's content.
///
/// Paths are relative to `directory`.
pub(super) fn read_all(
    variables: &mut BTreeMap<String, String>,
    source: &Source,
    directory: &Path,
    problems: &mut Vec<Problem>,
) {
    let secrets = Key::all().filter(|key| key.secret).flat_map(|key| key.environment.iter().copied());
    for name in secrets.chain(OF_THE_STORE) {
        let variable = format!("{name}{SUFFIX}");
        let Some(path) = variables.remove(&variable).filter(|path| !path.trim().is_empty()) else { continue };
        let is_set = variables.get(name).is_some_and(|value| !value.trim().is_empty());
        let secret =
            if is_set { Err(format!("is set beside {name}; set one of the two")) } else { read(directory, &path) };
        match secret {
            Ok(secret) => {
                variables.insert(name.to_owned(), secret);
            }
            Err(message) => problems.push(Problem { source: source.clone(), name: variable, message }),
        }
    }
}

/// Reads the file without its trailing line break.
fn read(directory: &Path, path: &str) -> Result<String, String> {
    let file = directory.join(path.trim());
    let unreadable = |error| format!("names the file {}, which cannot be read: {error}", file.display());
    if fs::metadata(&file).map_err(unreadable)?.len() > MAX_BYTES {
        return Err(format!("names the file {}, which is longer than 64 KiB", file.display()));
    }
    let text = fs::read_to_string(&file).map_err(unreadable)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        Err(format!("names the file {}, which is empty", file.display()))
    } else {
        Ok(secret.to_owned())
    }
}
