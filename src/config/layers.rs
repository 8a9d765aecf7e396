//! Reads the names and raw values of each layer, without interpreting them.

mod secret_files;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{Error, Flags, keys::Key, secret::redact};

/// Minimum similarity of a suggested name, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.8;

/// The source of a setting, lowest layer first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// A settings file.
    File(PathBuf),
    /// The `.env` file of the working directory.
    DotEnv,
    /// The process's environment.
    Environment,
    /// The command line.
    Flag,
}

impl Source {
    /// Returns the name of `key` in this layer.
    pub(super) fn spells(&self, key: &Key) -> String {
        match self {
            Self::Default | Self::File(_) => key.name.to_owned(),
            Self::DotEnv | Self::Environment => key.environment.first().copied().unwrap_or(key.name).to_owned(),
            Self::Flag => key.flag.map_or(key.name, |flag| flag.name).to_owned(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the built-in defaults"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::DotEnv => f.write_str(".env"),
            Self::Environment => f.write_str("the environment"),
            Self::Flag => f.write_str("the command line"),
        }
    }
}

/// An invalid setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The layer that contains it.
    pub source: Source,
    /// Its name in that layer: `listen`, `PM_LISTEN`, `--listen`.
    pub name: String,
    /// The error and the allowed values; continues "NAME in SOURCE …".
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} {}", self.name, self.source, self.message)
    }
}

/// A raw value of a layer.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Text(String),
    Table(Table),
}

impl Raw {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }
}

/// The settings of one layer, by their names in a file.
#[derive(Debug)]
pub(super) struct Layer {
    pub source: Source,
    pub values: BTreeMap<&'static str, Raw>,
    /// The variables that the S3 client reads itself.
    pub aws: BTreeMap<String, String>,
}

impl Layer {
    fn new(source: Source) -> Self {
        Self { source, values: BTreeMap::new(), aws: BTreeMap::new() }
    }
}

/// Reads all layers, lowest first, and adds unknown names to `problems`.
pub(super) fn read(
    flags: &Flags,
    directory: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    problems: &mut Vec<Problem>,
) -> Result<Vec<Layer>, Error> {
    let mut layers = vec![defaults()];
    layers.extend(read_file(flags.config.as_deref(), directory, problems)?);
    layers.extend(read_dotenv(directory, problems)?);
    layers.push(from_variables(Source::Environment, environment, directory, problems));
    let mut layer = Layer::new(Source::Flag);
    for (name, value) in flags.settings() {
        layer.values.insert(name, Raw::Text(value.trim().to_owned()));
    }
    layers.push(layer);
    Ok(layers)
}

fn defaults() -> Layer {
    let mut layer = Layer::new(Source::Default);
    for key in Key::of_files() {
        let text = if key.default == "[]" { "" } else { key.default };
        layer.values.insert(key.name, Raw::Text(text.to_owned()));
    }
    layer
}

fn read_file(named: Option<&Path>, directory: &Path, problems: &mut Vec<Problem>) -> Result<Option<Layer>, Error> {
    let shown = named.unwrap_or(Path::new("pm.toml"));
    match fs::read_to_string(directory.join(shown)) {
        Ok(text) => from_toml(&text, Source::File(shown.to_owned()), problems).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(source) => Err(Error::Unreadable { path: shown.to_owned(), source }),
    }
}

fn from_toml(text: &str, source: Source, problems: &mut Vec<Problem>) -> Result<Layer, Error> {
    let table = parse_toml(text).map_err(|message| Error::Malformed { source_name: source.clone(), message })?;
    let mut layer = Layer::new(source);
    for (name, value) in table {
        let Some(key) = Key::find(&name).filter(|key| key.in_files) else {
            let known: Vec<_> = Key::of_files().map(|key| key.name).collect();
            problems.push(unknown(&layer.source, &name, &known));
            continue;
        };
        match raw(value) {
            Some(raw) => {
                layer.values.insert(key.name, raw);
            }
            None => problems.push(Problem {
                source: layer.source.clone(),
                name,
                message: format!("has a value of an unsupported type; allowed is {}", key.allowed),
            }),
        }
    }
    Ok(layer)
}

/// Parses `text` as TOML; the error message masks passwords.
pub(super) fn parse_toml(text: &str) -> Result<Table, String> {
    text.parse().map_err(|error: toml::de::Error| redact(error.to_string().trim_end()))
}

/// Converts a TOML value to text; a list becomes text with commas.
fn raw(value: Value) -> Option<Raw> {
    match value {
        Value::Table(table) => Some(Raw::Table(table)),
        Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(scalar).collect();
            texts.map(|texts| Raw::Text(texts.join(",")))
        }
        single => scalar(&single).map(Raw::Text),
    }
}

/// Converts a string, number or boolean to its text in an environment variable.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

fn read_dotenv(directory: &Path, problems: &mut Vec<Problem>) -> Result<Option<Layer>, Error> {
    let path = directory.join(".env");
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Unreadable { path: ".env".into(), source }),
    };
    let variables: Result<Vec<_>, _> = dotenvy::from_read_iter(file).collect();
    // The parser's own message contains the whole line, which may include a password.
    let variables = variables.map_err(|error| Error::Malformed {
        source_name: Source::DotEnv,
        message: match error {
            dotenvy::Error::LineParse(line, at) => {
                let name = line.split_once('=').map_or("", |(name, _)| name.trim());
                format!("the line of `{name}` has a syntax error at character {at}; quote its value")
            }
            dotenvy::Error::Io(error) => error.to_string(),
            _ => "it cannot be read".into(),
        },
    })?;
    Ok(Some(from_variables(Source::DotEnv, variables, directory, problems)))
}

fn from_variables(
    source: Source,
    variables: impl IntoIterator<Item = (String, String)>,
    directory: &Path,
    problems: &mut Vec<Problem>,
) -> Layer {
    let mut layer = Layer::new(source);
    let mut variables: BTreeMap<String, String> = variables.into_iter().collect();
    secret_files::read_all(&mut variables, &layer.source, directory, problems);
    for key in Key::all() {
        let set = |name: &&&str| variables.contains_key(**name);
        if let Some(name) = key.environment.iter().find(set) {
            layer.values.insert(key.name, Raw::Text(variables[*name].trim().to_owned()));
        }
    }
    spell_out_redis(&mut layer);
    for (name, value) in variables {
        if name.starts_with("AWS_") {
            layer.aws.insert(name, value);
        } else if is_unknown(&name, &value) {
            let known: Vec<_> = Key::all().flat_map(|key| key.environment).copied().collect();
            problems.push(unknown(&layer.source, &name, &known));
        }
    }
    layer
}

/// Replaces `REDIS_ADDR` by `REDIS_URL`, unless the layer sets both.
fn spell_out_redis(layer: &mut Layer) {
    let Some(Raw::Text(address)) = layer.values.remove("redis_addr") else { return };
    let has_url = layer.values.get("redis_url").is_some_and(|raw| !raw.is_empty());
    if !has_url && !address.is_empty() {
        layer.values.insert("redis_url", Raw::Text(format!("redis://{address}")));
    }
}

fn is_unknown(name: &str, value: &str) -> bool {
    name.starts_with("PM_")
        && !Key::all().any(|key| key.environment.contains(&name))
        && !name.starts_with("PM_TEST_")
        && name != "PM_CORPUS"
        && !is_service_link(name, value)
}

/// Returns whether Kubernetes set the variable for a service named `pm`, such as `PM_SERVICE_HOST`.
fn is_service_link(name: &str, value: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT") && (value.starts_with("tcp://") || value.starts_with("udp://")))
        || name.contains("_TCP_")
        || name.contains("_UDP_")
}

fn unknown(source: &Source, name: &str, known: &[&str]) -> Problem {
    Problem {
        source: source.clone(),
        name: name.to_owned(),
        message: match closest(name, known) {
            Some(meant) => format!("is not a setting; did you mean {meant}?"),
            None => format!("is not a setting; known are {}", known.join(", ")),
        },
    }
}

/// Returns the known name that is most similar to `name`, if one is similar enough to be meant.
fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|other| (similarity(name, other), *other));
    let (score, meant) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score > MIN_SIMILARITY).then_some(meant)
}

/// Returns the similarity of two names without the prefix that most have: the Jaro similarity, more if one contains all
/// words of the other.
fn similarity(one: &str, other: &str) -> f64 {
    let (one, other) = (one.trim_start_matches("PM_"), other.trim_start_matches("PM_"));
    let contains = |longer: &str, shorter: &str| shorter.split('_').all(|word| longer.split('_').any(|it| it == word));
    let jaro = strsim::jaro(one, other);
    if contains(one, other) || contains(other, one) { jaro.mul_add(0.2, MIN_SIMILARITY + 0.01) } else { jaro }
}
