//! Settings of the database, cache, broker and blob store.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key::new("data_dir", &["PM_DATA_DIR"], "./pm-data")
        .doc("Directory for local data, relative to the working directory.")
        .allowed("a directory")
        .flag("--data-dir", None),
    Key::new("database_url", &["DATABASE_URL"], "sqlite://{data_dir}/pm.db")
        .doc(
            "The database. `DB_HOST`, `DB_PORT`, `DB_USER`, `DB_PASSWORD` and `DB_NAME` set the same in parts. In \
            one layer `DATABASE_URL` overrides them. With `DB_HOST` or `DB_NAME` in a higher layer, they override a \
            `DATABASE_URL` of a lower layer.",
        )
        .allowed("sqlite://FILE or postgres://USER:PASSWORD@HOST:PORT/NAME")
        .flag("--database-url", None)
        .secret(),
    Key::new("db_host", &["DB_HOST"], "")
        .doc("Host of the database, instead of `database_url`.")
        .allowed("a host's name or address")
        .environment_only(),
    Key::new("db_port", &["DB_PORT"], "")
        .doc("Port of the database.")
        .allowed("a port from 1 to 65535")
        .environment_only(),
    Key::new("db_user", &["DB_USER"], "")
        .doc("User of the database.")
        .allowed("a user of the database")
        .environment_only(),
    Key::new("db_password", &["DB_PASSWORD"], "")
        .doc("Password of the database's user.")
        .allowed("that user's password")
        .secret()
        .environment_only(),
    Key::new("db_name", &["DB_NAME"], "").doc("Name of the database.").allowed("a database's name").environment_only(),
    Key::new("database_pooler", &["PM_DATABASE_POOLER"], "auto")
        .doc(
            "Whether connections go through a pooler in transaction mode, such as PgBouncer: `transaction` (yes), \
            `off` (no), or `auto` (detect it at start).",
        )
        .allowed("auto, off or transaction"),
    Key::new("database_direct_url", &["PM_DATABASE_DIRECT_URL"], "")
        .doc("URL of the same database without the pooler, for notifications and migrations.")
        .allowed("postgres://USER:PASSWORD@HOST:PORT/NAME")
        .secret(),
    Key::new("database_max_connections", &["PM_DATABASE_MAX_CONNECTIONS"], "16")
        .doc("Maximum PostgreSQL connections per process, plus two for notifications.")
        .allowed("a number from 2 to 1000"),
    Key::new("database_idle_timeout", &["PM_DATABASE_IDLE_TIMEOUT"], "30s")
        .doc("Period of the peak usage; connections beyond this peak are closed.")
        .allowed("a time from 1s to 1h, such as 30s")
        .measure(),
    Key::new("database_statement_timeout", &["PM_DATABASE_STATEMENT_TIMEOUT"], "60s")
        .doc("Time limit of a statement, except in migrations; `0s`: the server's own limit.")
        .allowed("0s, or a time from 1s to 1d, such as 60s")
        .measure(),
    Key::new("database_connect_timeout", &["PM_DATABASE_CONNECT_TIMEOUT"], "5s")
        .doc("Time limit for getting a PostgreSQL connection, new or from the pool.")
        .allowed("a time from 100ms to 1m, such as 5s")
        .measure(),
    Key::new("auto_migrate", &["PM_AUTO_MIGRATE"], "auto")
        .doc("Migrate the schema at start: `true`, `false`, or `auto` (only on SQLite).")
        .allowed("true, false or auto"),
    Key::new("redis_url", &["REDIS_URL"], "")
        .doc("The shared cache. Without it, SQLite has an in-process cache and PostgreSQL has none.")
        .allowed("redis://HOST:PORT or rediss://HOST:PORT")
        .flag("--redis-url", None)
        .secret(),
    Key::new("redis_addr", &["REDIS_ADDR"], "")
        .doc("Address of Redis, instead of `redis_url`.")
        .allowed("HOST:PORT")
        .environment_only(),
    Key::new("redis_prefix", &["PM_REDIS_PREFIX"], "pm")
        .doc("Prefix of all Redis keys; the installation's id follows.")
        .allowed("1 to 64 letters, digits and any of `-_.:`"),
    Key::new("cache_lifetime", &["PM_CACHE_LIFETIME"], "1h")
        .doc(
            "Maximum age of a cached product, in the process or in Redis. Every change deletes the entry \
            immediately; this limit is only a safeguard.",
        )
        .allowed("a time from 1s to 30d, such as 1h")
        .measure(),
    Key::new("rabbitmq_url", &["RABBITMQ_URL"], "")
        .doc("The message broker. Without it, the database is the queue.")
        .allowed("amqp://USER:PASSWORD@HOST:PORT/ or amqps://…")
        .flag("--rabbitmq-url", None)
        .secret(),
    Key::new("rabbitmq_queue", &["PM_RABBITMQ_QUEUE"], "pm.images.v2")
        .doc("Prefix of the queue's name at the broker; a dot and the installation's id follow.")
        .allowed("1 to 64 letters, digits and any of `-_.:`"),
    Key::new("storage_url", &["PM_STORAGE_URL"], "file://{data_dir}/blobs")
        .doc(
            "Where images are stored. S3 uses the variables `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, \
            `AWS_REGION` and `AWS_ENDPOINT_URL`.",
        )
        .allowed("file://DIRECTORY or s3://BUCKET/PREFIX")
        .flag("--storage-url", None)
        .secret(),
    Key::new("storage_adopt", &["PM_STORAGE_ADOPT"], "false")
        .doc(
            "Adopt a blob store without this installation's marker, because its files were moved without \
            `installation.json` or were lost. Set it for one command only. It never adopts the store of another \
            installation.",
        )
        .allowed("true or false"),
];
