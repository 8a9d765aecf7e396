//! Tests of the layers, without the process's own environment.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::domain::AddressPolicy;

/// Creates a directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        fs::write(directory.path().join(name), text).expect("a file");
    }
    directory
}

fn load_from(files: &[(&str, &str)], environment: &[(&str, &str)], flags: &Flags) -> Result<Settings, Error> {
    let directory = directory(files);
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    load(flags, directory.path(), environment)
}

fn loaded(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Settings {
    load_from(files, environment, &Flags::default()).expect("right settings")
}

fn refused(files: &[(&str, &str)], environment: &[(&str, &str)]) -> String {
    load_from(files, environment, &Flags::default()).expect_err("wrong settings").to_string()
}

fn postgres(url: &str) -> DatabaseUrl {
    DatabaseUrl::Postgres { url: url.into() }
}

#[test]
fn defaults_apply_without_other_layers() {
    let settings = loaded(&[], &[]);
    assert_eq!(settings.database, DatabaseUrl::Sqlite { path: "./pm-data/pm.db".into() });
    assert_eq!(settings.storage_url, "file://./pm-data/blobs");
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!((settings.redis_url.as_deref(), settings.rabbitmq_url.as_deref()), (None, None));
    assert_eq!((settings.fetching.max_bytes, settings.image_memory), (32 << 20, 512 << 20));
    assert_eq!(settings.fetching.timeout, Duration::from_secs(30));
    assert_eq!(settings.presets, crate::imaging::default_presets());
    let security = SecuritySettings { keep_alive: Duration::from_secs(75), ..SecuritySettings::default() };
    assert!(settings.auto_migrate && settings.auto_users && settings.security == security && settings.workers >= 1);
}

#[test]
fn a_presets_own_effort_overrides_the_default_effort() {
    let file = ("pm.toml", "image_effort = 'small'\n[presets.a]\nedge = 9\n[presets.b]\nedge = 8\neffort = 'balanced'");
    let efforts = |settings: &Settings| settings.presets.iter().map(|preset| preset.effort).collect::<Vec<_>>();
    assert_eq!(efforts(&loaded(&[file], &[])), [Effort::Small, Effort::Balanced]);
    let settings = loaded(&[file], &[("PM_IMAGE_EFFORT", "fast")]);
    assert_eq!(efforts(&settings), [Effort::Fast, Effort::Balanced]);
    assert_eq!((settings.image_effort, settings.source("image_effort")), (Effort::Fast, &Source::Environment));
    let message = refused(&[], &[("PM_IMAGE_EFFORT", "most")]);
    assert!(message.contains("`most`") && message.contains("fast, balanced or small"), "{message}");
}

#[test]
fn each_layer_overrides_the_lower_ones() {
    let file = ("pm.toml", "redis_prefix = 'file'\nrabbitmq_queue = 'file'\nlisten = '127.0.0.1:1'\nlog = 'warn'");
    let dotenv = (".env", "PM_RABBITMQ_QUEUE=dotenv\nPM_LISTEN=127.0.0.1:2\nPM_LOG=error\n");
    let environment = [("PM_LISTEN", "127.0.0.1:3"), ("PM_LOG", "debug")];
    let flags = Flags { log: Some("trace".into()), ..Flags::default() };
    let settings = load_from(&[file, dotenv], &environment, &flags).expect("right settings");
    assert_eq!(settings.redis_prefix, "file");
    assert_eq!(settings.rabbitmq_queue, "dotenv");
    assert_eq!(settings.listen.port(), 3);
    assert_eq!(settings.log, "trace");
    assert_eq!(settings.source("data_dir"), &Source::Default);
    assert_eq!(settings.source("redis_prefix"), &Source::File("pm.toml".into()));
    assert_eq!(settings.source("rabbitmq_queue"), &Source::DotEnv);
    assert_eq!(settings.source("listen"), &Source::Environment);
    assert_eq!(settings.source("log"), &Source::Flag);
}

#[test]
fn the_five_database_variables_and_redis_addr_of_a_dotenv_file_are_read() {
    let dotenv = "#Database\nDB_HOST=localhost\nDB_PORT=5432\nDB_USER=productuser\nDB_PASSWORD=secret\n\
        DB_NAME=productdb\n\n#Redis\nREDIS_ADDR=localhost:6379\n\n#RabbitMQ\nRABBITMQ_URL=amqp://guest:guest@localhost:5672/\n";
    let settings = loaded(&[(".env", dotenv)], &[]);
    assert_eq!(settings.database, postgres("postgres://productuser:secret@localhost:5432/productdb"));
    assert_eq!(settings.redis_url.as_deref(), Some("redis://localhost:6379"));
    assert_eq!(settings.rabbitmq_url.as_deref(), Some("amqp://guest:guest@localhost:5672/"));
    assert!(!settings.auto_migrate);
    assert_eq!(settings.source("database_url"), &Source::DotEnv);
}

#[test]
fn database_url_overrides_parts_of_the_same_layer_but_not_of_a_higher_one() {
    let parts = ".env";
    let both = "DATABASE_URL=postgres://whole/pm\nDB_HOST=parts\nREDIS_URL=redis://whole\nREDIS_ADDR=parts:1\n";
    let settings = loaded(&[(parts, both)], &[]);
    assert_eq!(settings.database, postgres("postgres://whole/pm"));
    assert_eq!(settings.redis_url.as_deref(), Some("redis://whole"));

    let file = ("pm.toml", "database_url = 'postgres://file/pm'");
    assert_eq!(
        loaded(&[file], &[("DB_HOST", "higher"), ("DB_NAME", "pm")]).database,
        postgres("postgres://postgres@higher:5432/pm")
    );
    assert_eq!(
        loaded(&[file], &[("DB_PASSWORD", "stray"), ("DB_PORT", "tcp://10.0.0.1:1")]).database,
        postgres("postgres://file/pm")
    );
    let higher = [("DATABASE_URL", "postgres://higher/pm")];
    assert_eq!(loaded(&[(".env", "DB_HOST=lower")], &higher).database, postgres("postgres://higher/pm"));
    let password = [("DB_PASSWORD", "from outside")];
    assert_eq!(
        loaded(&[(".env", "DB_HOST=db\nDB_PASSWORD=lower")], &password).database,
        postgres("postgres://postgres:from%20outside@db:5432/")
    );
}

#[test]
fn an_empty_value_resets_a_setting_to_its_default() {
    let settings = loaded(
        &[(".env", "REDIS_URL=redis://lower\nPM_LISTEN=127.0.0.1:1\n")],
        &[("REDIS_URL", ""), ("PM_LISTEN", "")],
    );
    assert_eq!(settings.redis_url, None);
    assert_eq!(settings.listen.port(), 8080);
}

#[test]
fn unknown_names_are_refused_with_their_layer() {
    let message = refused(&[("pm.toml", "lissten = '127.0.0.1:1'\ndb_host = 'db'")], &[("PM_LISSTEN", "1")]);
    assert!(message.contains("lissten in pm.toml is not a setting; did you mean listen?"), "{message}");
    assert!(message.contains("db_host in pm.toml"), "{message}");
    assert!(message.contains("PM_LISSTEN in the environment is not a setting; did you mean PM_LISTEN?"), "{message}");
    assert!(refused(&[(".env", "PM_LISSTEN=1")], &[]).contains("PM_LISSTEN in .env"));
    assert!(refused(&[], &[("PM_QUEUE", "1")]).contains("did you mean PM_RABBITMQ_QUEUE?"));
    assert!(refused(&[], &[("PM_XYZ", "1")]).contains("PM_XYZ in the environment is not a setting; known are"));
}

#[test]
fn variables_of_other_programs_are_ignored() {
    let others = [
        ("PM_TEST_REQUIRE", "all"),
        ("PM_CORPUS", "/corpus"),
        ("PM_SERVICE_HOST", "10.0.0.1"),
        ("PM_PORT", "tcp://10.0.0.1:8080"),
        ("PM_API_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("HOME", "/root"),
    ];
    assert_eq!(loaded(&[], &others).listen.port(), 8080);
    assert!(refused(&[], &[("PM_PORT", "8080")]).contains("PM_PORT"));
}

#[test]
fn every_invalid_value_is_reported_with_the_allowed_values() {
    let message = refused(
        &[("pm.toml", "listen = 'here'\nworkers = 1.5\n[presets.a]\nedge = 0")],
        &[("PM_FETCH_TIMEOUT", "30"), ("PM_AUTH", "on"), ("DB_HOST", "db"), ("DB_PORT", "x"), ("PM_LOG_FORMAT", "xml")],
    );
    for part in [
        "listen in pm.toml is `here`, which is not an address with a port; allowed is an address and a port",
        "workers in pm.toml has a value of an unsupported type; allowed is a number from 0 to 1024, or auto",
        "presets in pm.toml has a preset `a` whose `edge`",
        "PM_FETCH_TIMEOUT in the environment is `30`, which needs a unit",
        "PM_AUTH in the environment is `on`",
        "DB_PORT in the environment is `x`",
        "PM_LOG_FORMAT in the environment is `xml`",
    ] {
        assert!(message.contains(part), "`{part}` is not in:\n{message}");
    }
    assert_eq!(message.lines().count(), 7, "{message}");
}

#[test]
fn unreadable_files_are_named() {
    let message = refused(&[("pm.toml", "listen = ")], &[]);
    assert!(message.contains("pm.toml cannot be read as settings"), "{message}");
    let flags = Flags { config: Some("other.toml".into()), ..Flags::default() };
    let message = load_from(&[], &[], &flags).expect_err("no such file").to_string();
    assert!(message.contains("other.toml"), "{message}");
    assert!(load_from(&[("other.toml", "redis_prefix = 'x'"), ("pm.toml", "invalid")], &[], &flags).is_ok());
}

#[test]
fn no_password_is_shown_anywhere() {
    const PASSWORD: &str = "hunter2";
    let right = [
        ("DATABASE_URL", "postgres://pm:hunter2@db/pm"),
        ("REDIS_URL", "redis://:hunter2@cache"),
        ("RABBITMQ_URL", "amqp://pm:hunter2@broker"),
        ("AWS_SECRET_ACCESS_KEY", PASSWORD),
    ];
    let settings = loaded(&[], &right);
    assert!(!format!("{settings:?} {:?}", settings.entries()).contains(PASSWORD));
    assert_eq!(settings.storage_environment["AWS_SECRET_ACCESS_KEY"], PASSWORD);

    let wrong = [
        ("DATABASE_URL", "mysql://pm:hunter2@db/pm"),
        ("REDIS_URL", "http://:hunter2@cache"),
        ("RABBITMQ_URL", "amqp:pm:hunter2"),
        ("PM_STORAGE_URL", "gs://hunter2"),
    ];
    let error = load_from(&[], &wrong, &Flags::default()).expect_err("wrong settings");
    assert!(!format!("{error} {error:?}").contains(PASSWORD));
    for file in [("pm.toml", "database_url = \"postgres://pm:hunter2@db/pm"), (".env", "DB_PASSWORD='hunter2")] {
        let error = load_from(&[file], &[], &Flags::default()).expect_err("half a file");
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
    }
}

#[test]
fn lists_and_numbers_of_a_file_are_parsed() {
    let file = "fetch_allow = ['127.0.0.0/8', '10.1.2.3']\nworkers = 3\nauto_users = false\n\
        fetch_max_bytes = 1_048_576\nauto_migrate = false\n[presets.only]\nwidth = 300\nheight = 200\nfit = 'cover'";
    let settings = loaded(&[("pm.toml", file)], &[]);
    assert_eq!(settings.fetching.policy, AddressPolicy::parse("127.0.0.0/8,10.1.2.3").expect("networks"));
    assert_eq!((settings.workers, settings.fetching.max_bytes), (3, 1 << 20));
    assert!(!settings.auto_users && !settings.auto_migrate);
    assert_eq!(settings.presets.len(), 1);
}

#[test]
fn every_secret_can_be_read_from_a_file() {
    let files = [
        ("password", "s3cret\n"),
        ("redis", "redis://:s3cret@cache:6379\r\n"),
        ("rabbit", "amqp://pm:s3cret@broker/"),
        ("keys", "a key of the tests with 32 characters,another key of 32 characters or so\n"),
        ("passphrase", "correct horse"),
        ("aws", "aws s3cret"),
    ];
    let variables = [
        ("DB_HOST", "db"),
        ("DB_PASSWORD_FILE", "password"),
        ("REDIS_URL_FILE", "redis"),
        ("RABBITMQ_URL_FILE", "rabbit"),
        ("PM_SECRET_KEY_FILE", "keys"),
        ("PM_URL_KEY_FILE", "keys"),
        ("PM_BACKUP_PASSPHRASE_FILE", "passphrase"),
        ("AWS_SECRET_ACCESS_KEY_FILE", "aws"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "the client's own"),
    ];
    let settings = loaded(&files, &variables);
    assert_eq!(settings.database, postgres("postgres://postgres:s3cret@db:5432/"));
    assert_eq!(settings.redis_url.as_deref(), Some("redis://:s3cret@cache:6379"));
    assert_eq!(settings.rabbitmq_url.as_deref(), Some("amqp://pm:s3cret@broker/"));
    assert!(settings.secret_key.is_some() && settings.url_key.is_some() && settings.backup_passphrase.is_some());
    assert_eq!(settings.storage_environment["AWS_SECRET_ACCESS_KEY"], "aws s3cret");
    assert_eq!(settings.storage_environment["AWS_WEB_IDENTITY_TOKEN_FILE"], "the client's own");
    assert!(!settings.storage_environment.contains_key("AWS_SECRET_ACCESS_KEY_FILE"));
    let address = ("url", "postgres://pm:s3cret@db/pm");
    let dotenv = (".env", "DATABASE_URL_FILE=url");
    assert_eq!(loaded(&[address, dotenv], &[]).database, postgres("postgres://pm:s3cret@db/pm"));
    assert!(!format!("{settings:?}").contains("s3cret"));
}

#[test]
fn an_unusable_secret_file_is_named_without_its_content() {
    let message = refused(&[], &[("REDIS_URL_FILE", "none")]);
    assert!(
        message.contains("REDIS_URL_FILE in the environment names the file") && message.contains("none"),
        "{message}"
    );
    let message = refused(&[("empty", "\n")], &[("PM_SECRET_KEY_FILE", "empty")]);
    assert!(message.contains("which is empty"), "{message}");
    let both = [("REDIS_URL_FILE", "redis"), ("REDIS_URL", "redis://cache")];
    let message = refused(&[("redis", "redis://other")], &both);
    assert!(message.contains("REDIS_URL_FILE in the environment is set beside REDIS_URL"), "{message}");
    let message = refused(&[("wrong", "s3cret")], &[("RABBITMQ_URL_FILE", "wrong")]);
    assert!(message.contains("RABBITMQ_URL") && !message.contains("s3cret"), "{message}");
    let message = refused(&[("level", "info")], &[("PM_LOG_FILE", "level")]);
    assert!(message.contains("PM_LOG_FILE") && message.contains("is not a setting"), "{message}");
    assert!(loaded(&[], &[("REDIS_URL_FILE", "")]).redis_url.is_none());
}

#[test]
fn every_dotenv_file_in_the_documentation_is_valid() {
    let pages = [include_str!("../../README.md"), include_str!("../../docs/OPERATIONS.md")];
    let blocks =
        pages.iter().flat_map(|page| page.split("```ini\n").skip(1)).filter_map(|rest| rest.split("```").next());
    let mut found = 0;
    for block in blocks {
        let key = "a key of the documentation with 32 characters";
        let directory = directory(&[("pm-url-key", key), ("pm-secret-key", key)]);
        let dotenv = block.replace("/run/secrets", &directory.path().display().to_string());
        fs::write(directory.path().join(".env"), &dotenv).expect("a file");
        let settings =
            load(&Flags::default(), directory.path(), []).unwrap_or_else(|error| panic!("{error}\n{dotenv}"));
        assert!(matches!(settings.database, DatabaseUrl::Postgres { .. }), "{dotenv}");
        assert!(settings.url_key.is_some() && settings.secret_key.is_some(), "PostgreSQL requires both keys: {dotenv}");
        found += 1;
    }
    assert!(found > 0, "the README contains a .env file");
}

#[test]
fn gc_every_is_a_day_by_default_and_zero_turns_it_off() {
    let every = |text| loaded(&[], &[("PM_GC_EVERY", text)]).gc_every;
    assert_eq!(every(""), Duration::from_secs(24 * 3_600));
    assert_eq!((every("0"), every("0s"), every("90m")), (Duration::ZERO, Duration::ZERO, Duration::from_secs(5_400)));
    for text in ["10ms", "-1s", "400d", "never"] {
        let message = refused(&[], &[("PM_GC_EVERY", text)]);
        assert!(message.contains("PM_GC_EVERY"), "{message}");
    }
}
