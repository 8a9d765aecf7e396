//! Detects a pooler in transaction mode, such as PgBouncer, and waits for the first connection.

use std::{borrow::Cow, str::FromStr as _, sync::Arc, time::Duration};

use sea_orm::{
    DbErr, RuntimeErr,
    sqlx::{self, ConnectOptions as _, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions},
};
use tokio::time::{Instant, timeout};

use crate::{
    db::{Config, Connection, Database, Error, Postgres, error},
    retry,
};

/// How connections to PostgreSQL are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Detected at the first connection.
    #[default]
    Auto,
    /// Each connection is one session.
    Off,
    /// Each transaction may get another session.
    Transaction,
}

impl Pooler {
    /// Parses a setting.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Auto, Self::Off, Self::Transaction].into_iter().find(|way| way.as_str() == name)
    }

    /// Returns `auto`, `off` or `transaction`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Transaction => "transaction",
        }
    }
}

/// Result of the first connection, which stays when the pool is replaced. Empty on SQLite.
#[derive(Default)]
pub(in crate::db) struct Link {
    /// The URL without options that a pooler rejects.
    pub url: String,
    /// Settings of each transaction; `None` if connections are sessions.
    pub local: Option<Arc<str>>,
    /// Options for connections to the direct URL.
    direct: Option<Arc<PgConnectOptions>>,
}

impl Link {
    /// Returns whether each transaction may get another session.
    pub(in crate::db) const fn is_pooled(&self) -> bool {
        self.local.is_some()
    }

    /// Describes how connections are used.
    pub(in crate::db) fn describe(&self, config: &Postgres) -> String {
        let most = config.max_connections;
        match (self.is_pooled(), &self.direct) {
            (false, _) => format!("sessions, {most} at most"),
            (true, Some(_)) => format!("through a pooler in transaction mode, {most} at most, with a direct URL"),
            (true, None) => {
                format!("through a pooler in transaction mode, {most} at most; no direct URL for notifications")
            }
        }
    }
}

/// Hides the URLs, which contain passwords.
impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Connection {
    /// Returns the options for a separate session, or `None` if none is possible.
    pub(super) fn session_options(&self) -> Option<Arc<PgConnectOptions>> {
        match (&self.link().direct, self.link().is_pooled()) {
            (Some(direct), _) => Some(direct.clone()),
            (None, false) => Some(self.pool().get_postgres_connection_pool().connect_options()),
            (None, true) => None,
        }
    }
}

impl Database {
    /// Returns the database at its direct URL if there is one, else itself.
    pub(in crate::db) async fn direct(&self) -> Result<Self, Error> {
        let Config::Postgres(config) = &self.shared.config else { return Ok(self.clone()) };
        let Some(url) = config.direct_url.clone() else { return Ok(self.clone()) };
        let direct = Postgres { url, direct_url: None, pooler: Pooler::Off, ..config.clone() };
        Self::open(&Config::Postgres(direct)).await
    }
}

/// A custom startup parameter. A server keeps it for the session; a pooler drops or rejects it, since it cannot.
const MARK: &str = "pm.session";

/// Connects once and detects how connections are used.
/// Waits while the server has no free connection.
///
/// # Errors
/// [`Error::Unavailable`] if the database cannot be reached, or had no connection free for `config.max_wait`.
pub(in crate::db) async fn find(config: &Postgres) -> Result<Link, Error> {
    let (began, mut said) = (Instant::now(), None::<Instant>);
    for tries in 1.. {
        match timeout(config.connect_timeout, detect(config)).await {
            Ok(Ok(link)) => {
                say(&link);
                return Ok(link);
            }
            Ok(Err(error)) if error::is_full(&error) && config.max_wait.is_none_or(|limit| began.elapsed() < limit) => {
                if said.is_none_or(|said| said.elapsed() >= LOG_INTERVAL) {
                    tracing::warn!(
                        %error,
                        waited_s = began.elapsed().as_secs(),
                        "PostgreSQL has no free connection; waiting for one"
                    );
                    said = Some(Instant::now());
                }
            }
            Ok(Err(sqlx::Error::Configuration(reason))) => return Err(Error::Misconfigured(reason.to_string())),
            Ok(Err(error)) => return Err(Error::Unavailable(DbErr::Conn(RuntimeErr::SqlxError(error.into())))),
            Err(late) => return Err(Error::Unavailable(DbErr::Custom(format!("cannot connect in time: {late}")))),
        }
        tokio::time::sleep(RETRY_POLICY.delay(tries, None, fastrand::f64()).unwrap_or(RETRY_POLICY.longest)).await;
    }
    unreachable!("the loop ends by returning")
}

/// Interval between log messages while waiting for a connection.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Retry policy for the first connection.
const RETRY_POLICY: retry::Policy = retry::Policy {
    attempts: u32::MAX,
    first: Duration::from_millis(100),
    longest: Duration::from_secs(1),
    jitter: 0.2,
};

/// Logs unusual connection settings.
fn say(link: &Link) {
    if link.is_pooled() {
        tracing::info!("PostgreSQL is behind a pooler in transaction mode: every statement runs in a transaction");
    }
    if link.is_pooled() && link.direct.is_none() {
        tracing::info!(
            "the pooler does not forward notifications: this process polls for jobs every second and for events four \
             times a second, and other processes cannot detect its end; set PM_DATABASE_DIRECT_URL to a URL without \
             a pooler"
        );
    }
}

async fn detect(config: &Postgres) -> Result<Link, sqlx::Error> {
    let (bare_url, settings) = split_options(&config.url);
    let direct = config.direct_url.as_deref().map(options).transpose()?.map(Arc::new);
    let session = Link { local: None, url: config.url.clone(), direct: direct.clone() };
    let pooled =
        || Link { local: Some(local(config, &settings).into()), url: bare_url.clone(), direct: direct.clone() };
    let link = match config.pooler {
        Pooler::Off => session,
        Pooler::Transaction => pooled(),
        Pooler::Auto if keeps_its_session(&config.url).await? => session,
        Pooler::Auto => pooled(),
    };
    // A pooler accepts connections before it has one to the server: only a statement shows whether it has.
    let mut connection = options(&link.url)?.connect().await?;
    let here = server_identity(&mut connection).await?;
    connection.close().await?;
    if let (Some(url), Some(options)) = (&config.direct_url, &link.direct) {
        let mut connection = options.connect().await?;
        let there = server_identity(&mut connection).await?;
        connection.close().await?;
        if there != here {
            return Err(sqlx::Error::Configuration(
                "PM_DATABASE_DIRECT_URL points to another database than DATABASE_URL".into(),
            ));
        }
        if !keeps_its_session(url).await? {
            return Err(sqlx::Error::Configuration(
                "PM_DATABASE_DIRECT_URL points to a pooler in transaction mode; it must point to PostgreSQL".into(),
            ));
        }
    }
    Ok(link)
}

/// Identifies the database and its running server, whatever route the connection takes.
async fn server_identity(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    const SQL: &str = "SELECT oid || ' ' || extract(epoch FROM pg_postmaster_start_time())
        FROM pg_database WHERE datname = current_database()";
    sqlx::raw_sql(SQL).fetch_one(connection).await?.try_get(0)
}

/// Returns whether the server kept a parameter that was set at startup.
async fn keeps_its_session(url: &str) -> Result<bool, sqlx::Error> {
    let value = format!("{:016x}", fastrand::u64(..));
    let mut connection: PgConnection = match options(url)?.options([(MARK, value.as_str())]).connect().await {
        Ok(connection) => connection,
        Err(error) if refuses_options(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    // Not a prepared statement, which might remain on a connection that another client gets next.
    let kept = sqlx::raw_sql("SELECT current_setting('pm.session', true)").fetch_one(&mut connection).await?;
    let kept = kept.try_get::<Option<String>, _>(0)?;
    connection.close().await?;
    Ok(kept.as_deref() == Some(&value))
}

fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(plain(PgConnectOptions::from_str(url)?).disable_statement_logging())
}

/// Removes the driver's startup parameter for float digits.
/// A pooler rejects it, and every supported server version prints floats in full by default.
pub(in crate::db) fn plain(options: PgConnectOptions) -> PgConnectOptions {
    options.extra_float_digits(None)
}

/// PgBouncer: `unsupported startup parameter: options`, or `… in options: pm.session`. Other poolers use other texts.
fn refuses_options(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(refusal) = error else { return false };
    let code = refusal.code().unwrap_or(Cow::Borrowed(""));
    matches!(&*code, "08P01" | "0A000")
        && ["startup", "option"].iter().any(|word| refusal.message().to_lowercase().contains(word))
}

/// Returns the settings of each transaction behind a pooler.
fn local(config: &Postgres, settings: &[(String, String)]) -> String {
    let ours = config.timeouts().into_iter().map(|(name, value)| format!("SET LOCAL {name} = {value}"));
    // `set_config` parses a value like a startup option, including lists; SET would quote each list item separately.
    let given = settings.iter().map(|(name, value)| format!("SELECT set_config('{name}', {}, true)", quoted(value)));
    ours.chain(given).collect::<Vec<_>>().join("; ")
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Splits a URL into the URL without `options`, and the settings in them.
/// Examples of settings: `-c search_path=shop` and `--search_path=shop`.
fn split_options(url: &str) -> (String, Vec<(String, String)>) {
    let Ok(mut parsed) = url::Url::parse(url) else { return (url.to_owned(), Vec::new()) };
    let (mut kept, mut settings) = (Vec::new(), Vec::new());
    for (name, value) in parsed.query_pairs().into_owned() {
        match name.as_str() {
            "options" => settings.extend(assignments(&value)),
            _ => match name.strip_prefix("options[").and_then(|name| name.strip_suffix(']')) {
                Some(setting) => settings.push((setting.to_owned(), value)),
                None => kept.push((name, value)),
            },
        }
    }
    if settings.is_empty() {
        return (url.to_owned(), settings);
    }
    parsed.set_query(None);
    if !kept.is_empty() {
        parsed.query_pairs_mut().extend_pairs(kept);
    }
    // Accepts only valid setting names, so that no SQL can be injected.
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
    settings.retain(|(name, _)| !name.is_empty() && is_name(name));
    (parsed.into(), settings)
}

fn assignments(options: &str) -> Vec<(String, String)> {
    let words = words(options);
    let words = words.iter().filter(|word| *word != "-c");
    let words = words.map(|word| word.trim_start_matches("--").trim_start_matches("-c"));
    words.filter_map(|word| word.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Splits `options` into words; a backslash escapes a space.
fn words(options: &str) -> Vec<String> {
    let (mut words, mut word, mut chars) = (Vec::new(), String::new(), options.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_in_a_url_become_settings_of_each_transaction() {
        let (url, settings) = split_options("postgres://u@h/d?options=-c%20search_path%3Dshop,public&sslmode=disable");
        assert_eq!(url, "postgres://u@h/d?sslmode=disable");
        let config = Postgres { statement_timeout: Duration::from_secs(1), ..Postgres::new(url) };
        assert_eq!(
            local(&config, &settings),
            "SET LOCAL idle_in_transaction_session_timeout = 10000; SET LOCAL statement_timeout = 1000; \
             SELECT set_config('search_path', 'shop,public', true)"
        );
        let (_, settings) = split_options("postgres://u@h/d?options[search_path]=a'b&options[x;y]=1");
        assert_eq!(settings, [("search_path".to_owned(), "a'b".to_owned())]);
        assert_eq!(quoted("a'b"), "'a''b'");
        let (_, settings) = split_options(r"postgres://u@h/d?options=-c%20search_path%3Dshop,%5C%20public");
        assert_eq!(settings, [("search_path".to_owned(), "shop, public".to_owned())]);
    }

    #[test]
    fn a_url_without_options_is_unchanged() {
        let url = "postgres://u:p%40ss@h/d?sslmode=require";
        assert_eq!(split_options(url), (url.to_owned(), Vec::new()));
    }
}
