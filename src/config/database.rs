//! Reads the database URL from `DATABASE_URL`, or assembles it from `DB_*`.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::{resolve::Resolver, secret::redact, values};
use crate::db::Pooler;

/// All bytes except those that a URL may contain anywhere (RFC 3986, unreserved).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// As [`RESERVED`], without the bytes of an IPv6 address.
const HOST: &AsciiSet = &RESERVED.remove(b'[').remove(b']').remove(b':');

/// The location of the database.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file on this machine; pm creates it if it is missing.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A PostgreSQL server.
    Postgres {
        /// The URL with user, password and database, percent-encoded.
        url: String,
    },
}

/// Settings of the connections to PostgreSQL.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseConnections {
    /// Whether connections go through a pooler in transaction mode.
    pub pooler: Pooler,
    /// URL of the same database without the pooler.
    pub direct_url: Option<String>,
    /// Maximum number of connections per process.
    pub max: u32,
    /// Period of the peak usage; connections beyond this peak are closed.
    pub idle_timeout: Duration,
    /// Time limit of a statement; zero keeps the server's own setting.
    pub statement_timeout: Duration,
    /// Time limit of connecting.
    pub connect_timeout: Duration,
    /// Whether the first connection waits without limit while the server has none free.
    ///
    /// `serve` and `worker` set this in code; it is not a setting.
    pub wait: bool,
}

impl DatabaseConnections {
    /// Returns the name and value of each setting, with passwords masked.
    pub(super) fn entries(&self) -> Vec<(&'static str, String)> {
        vec![
            ("database_pooler", self.pooler.as_str().to_owned()),
            ("database_direct_url", self.direct_url.as_deref().map(redact).unwrap_or_default()),
            ("database_max_connections", self.max.to_string()),
        ]
    }
}

/// Reads the connection settings; returns `None` if one is invalid.
pub(super) fn connections(resolver: &mut Resolver<'_>) -> Option<DatabaseConnections> {
    const SECOND: Duration = Duration::from_secs(1);
    let pooler = resolver.take("database_pooler", |text| Pooler::parse(text).ok_or_else(|| "is unknown".into()));
    let direct_url =
        resolver.optional("database_direct_url", |text| values::service_url(text, &["postgres", "postgresql"]));
    let max = resolver.take("database_max_connections", |text| {
        text.parse().ok().filter(|max| (2..=1_000).contains(max)).ok_or_else(|| "is not a valid number".into())
    });
    let idle_timeout = resolver
        .take("database_idle_timeout", |text| values::duration_within(text, SECOND, Duration::from_secs(3_600)));
    let statement_timeout = resolver.take("database_statement_timeout", |text| match values::parse_duration(text)? {
        Duration::ZERO => Ok(Duration::ZERO),
        _ => values::duration_within(text, SECOND, Duration::from_secs(86_400)),
    });
    let connect_timeout = resolver.take("database_connect_timeout", |text| {
        values::duration_within(text, Duration::from_millis(100), Duration::from_secs(60))
    });
    Some(DatabaseConnections {
        pooler: pooler?,
        direct_url: direct_url?,
        max: max?,
        idle_timeout: idle_timeout?,
        statement_timeout: statement_timeout?,
        connect_timeout: connect_timeout?,
        wait: false,
    })
}

impl DatabaseUrl {
    /// Parses `sqlite://relative.db`, `sqlite:///absolute.db` or `postgres://…`.
    ///
    /// Replaces `{data_dir}` by `data_dir`.
    ///
    /// # Errors
    /// A message without the URL, which may contain a password.
    pub fn parse(text: &str, data_dir: &Path) -> Result<Self, String> {
        if let Some(file) = text.strip_prefix("sqlite:") {
            return parse_sqlite(file, data_dir);
        }
        let url = Url::parse(text).map_err(|error| format!("is not a valid URL: {error}"))?;
        match url.scheme() {
            "postgres" | "postgresql" => Ok(Self::Postgres { url: text.to_owned() }),
            _ => Err("has an unsupported scheme".into()),
        }
    }
}

fn parse_sqlite(file: &str, data_dir: &Path) -> Result<DatabaseUrl, String> {
    let file = file.strip_prefix("//").unwrap_or(file);
    // Other tools need this parameter; pm always creates a missing file.
    let file = file.strip_suffix("?mode=rwc").unwrap_or(file);
    if file.is_empty() {
        return Err("names no file".into());
    }
    if file.contains(":memory:") {
        return Err("must be a file: an in-memory database is lost with each connection".into());
    }
    if file.contains('?') {
        return Err("has unsupported parameters".into());
    }
    let path = match file.strip_prefix("{data_dir}/") {
        Some(inside) => data_dir.join(inside),
        None => PathBuf::from(file),
    };
    Ok(DatabaseUrl::Sqlite { path })
}

/// Masks the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "sqlite://{}", path.display()),
            Self::Postgres { url } => f.write_str(&redact(url)),
        }
    }
}

/// Masks the password.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// Returns the database of the highest layer that sets one.
///
/// Within a layer `DATABASE_URL` overrides `DB_*`. Only `DB_HOST` and `DB_NAME` select a database by parts, so that a
/// stray `DB_PASSWORD` or `DB_PORT` in the environment does not override a file's `DATABASE_URL`. Each part then comes
/// from the highest layer that sets it.
pub(super) fn resolve(resolver: &mut Resolver<'_>, data_dir: Option<&Path>) -> Option<DatabaseUrl> {
    let whole = resolver.rank("database_url");
    let parts = resolver.rank("db_host").max(resolver.rank("db_name"));
    if parts > whole {
        return from_parts(resolver).map(|url| DatabaseUrl::Postgres { url });
    }
    let data_dir = data_dir?;
    resolver.take("database_url", |text| DatabaseUrl::parse(text, data_dir))
}

fn from_parts(resolver: &mut Resolver<'_>) -> Option<String> {
    let host = resolver.optional("db_host", |text| Ok(text.to_owned()));
    let port = resolver.optional("db_port", |text| text.parse::<u16>().map_err(|_| "is not a port".into()));
    let user = resolver.optional("db_user", |text| Ok(text.to_owned()));
    let password = resolver.optional("db_password", |text| Ok(text.to_owned()));
    let name = resolver.optional("db_name", |text| Ok(text.to_owned()));
    Some(assemble(
        host?.as_deref().unwrap_or("localhost"),
        port?.unwrap_or(5432),
        user?.as_deref().unwrap_or("postgres"),
        password?.as_deref(),
        name?.as_deref(),
    ))
}

fn assemble(host: &str, port: u16, user: &str, password: Option<&str>, name: Option<&str>) -> String {
    let is_ipv6 = host.contains(':') && !host.starts_with('[');
    let host = if is_ipv6 { format!("[{host}]") } else { utf8_percent_encode(host, HOST).to_string() };
    let encode = |text| utf8_percent_encode(text, RESERVED);
    let password = password.map(|password| format!(":{}", encode(password))).unwrap_or_default();
    let name = name.map(|name| encode(name).to_string()).unwrap_or_default();
    format!("postgres://{}{password}@{host}:{port}/{name}", encode(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(path: &str) -> Result<DatabaseUrl, String> {
        Ok(DatabaseUrl::Sqlite { path: path.into() })
    }

    #[test]
    fn files_are_relative_absolute_or_in_the_data_directory() {
        let parse = |text| DatabaseUrl::parse(text, Path::new("/var/lib/pm"));
        assert_eq!(parse("sqlite://shop.db"), sqlite("shop.db"));
        assert_eq!(parse("sqlite:///srv/shop.db?mode=rwc"), sqlite("/srv/shop.db"));
        assert_eq!(parse("sqlite://{data_dir}/pm.db"), sqlite("/var/lib/pm/pm.db"));
        for text in ["sqlite://", "sqlite::memory:", "sqlite://a.db?cache=shared", "mysql://db/pm", "pm.db"] {
            assert!(parse(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn parts_are_encoded_into_a_url() {
        let url = assemble("db.internal", 5433, "shop", Some("p@ss/w%rd:1"), Some("product db"));
        assert_eq!(url, "postgres://shop:p%40ss%2Fw%25rd%3A1@db.internal:5433/product%20db");
        let url = assemble("::1", 5432, "shop", None, None);
        assert_eq!(url, "postgres://shop@[::1]:5432/");
        assert!(Url::parse(&url).is_ok());
    }

    #[test]
    fn passwords_are_never_shown() {
        let database = DatabaseUrl::parse("postgres://shop:s3cret@db/pm", Path::new(".")).expect("an address");
        assert!(!format!("{database} {database:?}").contains("s3cret"));
    }
}
