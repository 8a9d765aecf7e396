//! The names of all settings in files, environment and flags, and their allowed values.

/// The names and allowed values of a setting.
#[derive(Debug)]
pub(super) struct Key {
    /// The name in a file.
    pub name: &'static str,
    /// The names in the environment; the first one set takes precedence.
    pub environment: &'static [&'static str],
    /// The flag, if any.
    pub flag: Option<&'static str>,
    /// Whether a file may set it.
    pub in_files: bool,
    /// Whether the value may contain a password; messages then omit it.
    pub secret: bool,
    /// The allowed values; completes the sentence "allowed is …".
    pub allowed: &'static str,
}

const fn key(name: &'static str, environment: &'static [&'static str], allowed: &'static str) -> Key {
    Key { name, environment, flag: None, in_files: true, secret: false, allowed }
}

impl Key {
    const fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    const fn environment_only(self) -> Self {
        Self { in_files: false, ..self }
    }

    /// Returns the key with this name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }
}

const BOOLEAN: &str = "true or false";

/// All settings, in the order of `config.default.toml`.
pub(super) const KEYS: &[Key] = &[
    key("data_dir", &["PM_DATA_DIR"], "a directory").flag("--data-dir"),
    key("database_url", &["DATABASE_URL"], "sqlite://FILE or postgres://USER:PASSWORD@HOST:PORT/NAME")
        .flag("--database-url")
        .secret(),
    key("db_host", &["DB_HOST"], "a host's name or address").environment_only(),
    key("db_port", &["DB_PORT"], "a port from 1 to 65535").environment_only(),
    key("db_user", &["DB_USER"], "a user of the database").environment_only(),
    key("db_password", &["DB_PASSWORD"], "that user's password").environment_only().secret(),
    key("db_name", &["DB_NAME"], "a database's name").environment_only(),
    key("database_pooler", &["PM_DATABASE_POOLER"], "auto, off or transaction"),
    key("database_direct_url", &["PM_DATABASE_DIRECT_URL"], "postgres://USER:PASSWORD@HOST:PORT/NAME").secret(),
    key("database_max_connections", &["PM_DATABASE_MAX_CONNECTIONS"], "a number from 2 to 1000"),
    key("database_idle_timeout", &["PM_DATABASE_IDLE_TIMEOUT"], "a time from 1s to 1h, such as 30s"),
    key("database_statement_timeout", &["PM_DATABASE_STATEMENT_TIMEOUT"], "0s, or a time from 1s to 1d, such as 60s"),
    key("database_connect_timeout", &["PM_DATABASE_CONNECT_TIMEOUT"], "a time from 100ms to 1m, such as 5s"),
    key("auto_migrate", &["PM_AUTO_MIGRATE"], "true, false or auto"),
    key("redis_url", &["REDIS_URL"], "redis://HOST:PORT or rediss://HOST:PORT").flag("--redis-url").secret(),
    key("redis_addr", &["REDIS_ADDR"], "HOST:PORT").environment_only(),
    key("redis_prefix", &["PM_REDIS_PREFIX"], "1 to 64 letters, digits and any of `-_.:`"),
    key("cache_lifetime", &["PM_CACHE_LIFETIME"], "a time from 1s to 30d, such as 1h"),
    key("rabbitmq_url", &["RABBITMQ_URL"], "amqp://USER:PASSWORD@HOST:PORT/ or amqps://…")
        .flag("--rabbitmq-url")
        .secret(),
    key("rabbitmq_queue", &["PM_RABBITMQ_QUEUE"], "1 to 64 letters, digits and any of `-_.:`"),
    key("storage_url", &["PM_STORAGE_URL"], "file://DIRECTORY or s3://BUCKET/PREFIX").flag("--storage-url").secret(),
    key("storage_adopt", &["PM_STORAGE_ADOPT"], BOOLEAN),
    key("listen", &["PM_LISTEN"], "an address and a port, such as 127.0.0.1:8080").flag("--listen"),
    key("public_url", &["PM_PUBLIC_URL"], "an http or https URL without a query, such as https://shop.example"),
    key("url_key", &["PM_URL_KEY"], "one or more keys of at least 32 characters, separated by commas").secret(),
    key("secret_key", &["PM_SECRET_KEY"], "one or more keys of at least 32 characters, separated by commas").secret(),
    key("backup_passphrase", &["PM_BACKUP_PASSPHRASE"], "a passphrase").secret(),
    key("placeholder", &["PM_PLACEHOLDER"], "none or thumbhash"),
    key("auth", &["PM_AUTH"], "off, keys, or nothing"),
    key("auth_issuer", &["PM_AUTH_ISSUER"], "an https URL, or an http URL of this machine"),
    key("auth_audience", &["PM_AUTH_AUDIENCE"], "the required `aud` of tokens, such as https://shop.example"),
    key("auth_token_type", &["PM_AUTH_TOKEN_TYPE"], "at+jwt or any"),
    key("auth_client_id", &["PM_AUTH_CLIENT_ID"], "client ids at the issuer, separated by commas"),
    key("auth_scope_claim", &["PM_AUTH_SCOPE_CLAIM"], "names of claims, such as permissions, separated by commas"),
    key("auth_scope_prefix", &["PM_AUTH_SCOPE_PREFIX"], "a prefix of scopes, such as https://shop.example/"),
    key(
        "auth_default_scopes",
        &["PM_AUTH_DEFAULT_SCOPES"],
        "products:read, products:write and admin, separated by commas",
    ),
    key("auth_user_claim", &["PM_AUTH_USER_CLAIM"], "the name of a claim, such as email"),
    key("public_read", &["PM_PUBLIC_READ"], "products, images, or both, separated by commas"),
    key("tls_cert", &["PM_TLS_CERT"], "a file with certificates in PEM").flag("--tls-cert"),
    key("tls_key", &["PM_TLS_KEY"], "a file with the certificate's key in PEM").flag("--tls-key"),
    key("hsts", &["PM_HSTS"], "a time, such as 365d"),
    key("plain_http", &["PM_PLAIN_HTTP"], "allow, or nothing"),
    key("trusted_proxies", &["PM_TRUSTED_PROXIES"], "networks and addresses, such as 10.1.0.0/16, separated by commas"),
    key("forwarded_header", &["PM_FORWARDED_HEADER"], "x-forwarded-for or forwarded"),
    key("keepalive", &["PM_KEEPALIVE"], "a time from 1s to 1h, such as 75s"),
    key("rate_limit", &["PM_RATE_LIMIT"], "a number of requests per s, m or h and a burst, such as 10/s,burst=20"),
    key("cors_origins", &["PM_CORS_ORIGINS"], "origins such as https://shop.example, separated by commas, or *"),
    key("allowed_hosts", &["PM_ALLOWED_HOSTS"], "host names and addresses, separated by commas, or *"),
    key("auto_users", &["PM_AUTO_USERS"], BOOLEAN),
    key("workers", &["PM_WORKERS"], "a number from 0 to 1024, or auto").flag("--workers"),
    key("worker_listen", &["PM_WORKER_LISTEN"], "an address and a port, such as 127.0.0.1:8081").flag("--listen"),
    key("gc_every", &["PM_GC_EVERY"], "0, or a time from 1s to 365d, such as 24h"),
    key("fetch_allow", &["PM_FETCH_ALLOW"], "networks and addresses, such as 10.1.0.0/16, separated by commas"),
    key("fetch_max_bytes", &["PM_FETCH_MAX_BYTES"], "a size from 1 KiB to 1 GiB, such as 32 MiB"),
    key("fetch_timeout", &["PM_FETCH_TIMEOUT"], "a time from 100ms to 1h, such as 30s"),
    key("fetch_per_host", &["PM_FETCH_PER_HOST"], "a number from 1 to 1024"),
    key("max_waiting_jobs_per_user", &["PM_MAX_WAITING_JOBS_PER_USER"], "a number from 1 to 1000000000"),
    key("image_max_pixels", &["PM_IMAGE_MAX_PIXELS"], "a number of pixels from 1 to 1000000000"),
    key("image_memory", &["PM_IMAGE_MEMORY"], "a size of at least 16 MiB, such as 512 MiB"),
    key("image_timeout", &["PM_IMAGE_TIMEOUT"], "a time from 1s to 10m, such as 20s"),
    key("isolation", &["PM_ISOLATION"], "require, best-effort or off"),
    key("image_effort", &["PM_IMAGE_EFFORT"], "fast, balanced or small"),
    key(
        "log",
        &["PM_LOG", "RUST_LOG"],
        "error, warn, info, debug, trace or off, also by module: info,pm::worker=debug",
    ),
    key("log_format", &["PM_LOG_FORMAT"], "auto, pretty or json").flag("--log-format"),
    key(
        "presets",
        &["PM_PRESETS"],
        "a table of presets, each with edge, or width and height, and fit, focus, formats, quality, effort",
    ),
];
