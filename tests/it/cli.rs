//! The command line: arguments in; stdout, stderr and exit code out. Each test has its own directory.

mod key;
mod queue;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use tempfile::TempDir;

/// A working directory with its own data and no settings from outside.
struct Shop {
    directory: TempDir,
}

impl Shop {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin!("pm"));
        command.env_clear().current_dir(self.path()).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("pm starts")
    }

    /// Runs a command that must succeed; returns its stdout.
    fn read(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "pm {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.extend(["-o", "json"]);
        serde_json::from_str(&self.read(&args)).expect("JSON")
    }

    /// Runs a command that must fail without output; returns the exit code and stderr.
    fn fail(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert_eq!(text(&output.stdout), "", "pm {args:?}");
        (output.status.code().expect("no signal"), text(&output.stderr))
    }

    /// Adds a product without images; returns its id.
    fn add(&self, user: &str, name: &str, price: &str) -> String {
        let args = ["product", "add", "--user-id", user, "--name", name, "--price", price, "-q"];
        self.read(&args).trim().to_owned()
    }

    fn write_image(&self, name: &str) {
        let image = image::RgbaImage::from_fn(40, 30, |x, y| image::Rgba([x as u8 * 6, y as u8 * 8, 99, 255]));
        image.save(self.path().join(name)).expect("a PNG");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn help_names_every_command() {
    insta::assert_snapshot!(Shop::new().read(&["--help"]));
}

#[test]
fn users_are_added_listed_and_found() {
    let shop = Shop::new();
    let added = shop.json(&["user", "add", "--id", "1234", "--name", "Ada", "--email", "ada@example.com"]);
    assert_eq!(shop.read(&["user", "add", "--id", "5678", "-q"]), "5678\n");
    assert_eq!(shop.json(&["user", "get", "1234"]), added);
    let list = shop.json(&["user", "list"]);
    assert_eq!(list["items"][0], added);
    assert_eq!(list["items"][1]["id"], "5678");
    assert_eq!(list["next_cursor"], Value::Null);
    assert_eq!(shop.read(&["user", "list", "--limit", "1", "--all", "-q"]), "1234\n5678\n");

    let (code, stderr) = shop.fail(&["user", "add", "--id", "1234"]);
    assert_eq!(code, 1, "{stderr}");
    let (code, stderr) = shop.fail(&["user", "add", "--email", "nowhere"]);
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: --email is not an e-mail address"), "{stderr}");
    let (code, stderr) = shop.fail(&["user", "get", "unknown"]);
    assert_eq!(code, 3);
    assert!(stderr.contains("unknown"), "{stderr}");
}

#[test]
fn csv_cells_are_never_spreadsheet_formulas() {
    let shop = Shop::new();
    for name in ["=HYPERLINK(1)", "+49 30", "@A1", "-1+1", "-5", "'=1"] {
        let name = format!("--name={name}");
        shop.read(&["product", "add", "--user-id", "1234", &name, "--price", "19.99", "-q"]);
    }
    let csv = shop.read(&["product", "list", "--sort", "created_at", "-o", "csv"]);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let column = reader.headers().expect("heads").iter().position(|head| head == "product_name").expect("a name");
    let names: Vec<_> = reader.records().map(|row| row.expect("a row")[column].to_owned()).collect();
    assert_eq!(names, ["'=HYPERLINK(1)", "'+49 30", "'@A1", "'-1+1", "-5", "''=1"]);
    assert!(csv.contains(",19.99,"), "{csv}");
    let json = shop.json(&["product", "list", "--sort", "created_at"]);
    assert_eq!(json["items"][0]["product_name"], "=HYPERLINK(1)");
}

#[test]
fn a_product_is_shown_in_every_format() {
    let shop = Shop::new();
    let id = shop.add("1234", "Sample, \"quoted\"", "19.990");
    let product = shop.json(&["product", "get", &id]);
    assert_eq!(product["product_name"], "Sample, \"quoted\"");
    assert_eq!(product["status"], "ready");

    let json = shop.read(&["product", "get", &id, "-o", "json"]);
    assert!(json.contains("\"product_price\":19.99,"), "{json}");
    assert_eq!(shop.read(&["product", "get", &id, "-o", "ndjson"]), json);
    let csv = shop.read(&["product", "get", &id, "-o", "csv"]);
    let head = "id,user_id,product_name,product_description,product_images,product_price,compressed_product_images,\
        status,version,created_at,updated_at\n";
    let start = format!("{head}{id},1234,\"Sample, \"\"quoted\"\"\",,,19.99,,ready,1,");
    assert!(csv.starts_with(&start), "{csv}");
    let table = shop.read(&["product", "get", &id]);
    assert!(table.contains("Sample, \"quoted\"") && !table.contains('\u{1b}'), "{table}");
    assert!(shop.read(&["product", "get", &id, "--color", "always"]).contains('\u{1b}'));
}

#[test]
fn a_list_is_filtered_sorted_and_followed_over_all_pages() {
    let shop = Shop::new();
    let ids: Vec<_> = ["10", "30", "20"].map(|price| shop.add("1234", &format!("Cup of {price}"), price)).into();
    shop.add("other", "Plate", "15");
    let of_user = ["product", "list", "--user-id", "1234", "--sort", "-product_price"];
    let descending = format!("{}\n{}\n{}\n", ids[1], ids[2], ids[0]);
    assert_eq!(shop.read(&[&of_user[..], &["-q"]].concat()), descending);
    assert_eq!(shop.read(&[&of_user[..], &["-q", "--limit", "1", "--all"]].concat()), descending);
    assert_eq!(
        shop.read(&["product", "list", "--min-price", "15", "--max-price", "20", "--name", "cup", "-q"]),
        format!("{}\n", ids[2])
    );

    let page = shop.json(&[&of_user[..], &["--limit", "2"]].concat());
    let cursor = page["next_cursor"].as_str().expect("a second page");
    let rest = shop.json(&[&of_user[..], &["--cursor", cursor]].concat());
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        shop.json(&[&of_user[..], &["--limit", "1", "--all"]].concat())["items"].as_array().map(Vec::len),
        Some(3)
    );
    assert_eq!(shop.read(&["product", "list", "-o", "ndjson"]).lines().count(), 4);

    let (code, stderr) = shop.fail(&["product", "list", "--min-price", "-1", "--sort", "colour", "--limit", "0"]);
    assert_eq!(code, 2);
    for flag in ["--min-price must not be negative", "--sort must be one of", "--limit must be"] {
        assert!(stderr.contains(flag), "{stderr}");
    }
}

#[test]
fn a_product_is_changed_and_found_by_its_terms() {
    let shop = Shop::new();
    let id = shop.add("ada", "Lamp", "12.50");
    shop.add("ada", "Desk", "5");
    shop.write_image("image.png");
    let args = ["product", "update", &id, "--name", "Reading lamp", "--price", "13", "--description", "For a desk."];
    let changed = shop.json(&args);
    assert_eq!((&changed["product_name"], &changed["version"]), (&"Reading lamp".into(), &2.into()));
    let images = ["--add-image", "image.png", "--add-image", "https://example.com/a.jpg"];
    let with = shop.json(&[&["product", "update", id.as_str()][..], &images].concat());
    let numbers: Vec<_> = with["images"].as_array().unwrap().iter().map(|image| image["id"].to_string()).collect();
    assert_eq!(numbers.len(), 2);
    let without = shop.json(&["product", "update", &id, "--remove-image", &numbers[0]]);
    assert_eq!(without["product_images"], serde_json::json!(["https://example.com/a.jpg"]));
    assert_eq!(shop.read(&["product", "list", "--query", "DÉS", "-q"]), format!("2\n{id}\n"), "the name counts more");
    let (code, stderr) = shop.fail(&["product", "update", &id, "--price", "-1", "--name", " "]);
    assert!(code == 2 && stderr.contains("--price") && stderr.contains("--name"), "{code}: {stderr}");
    assert_eq!(shop.fail(&["product", "update", "99", "--name", "x"]).0, 3);
    assert_eq!(shop.fail(&["product", "update", &id]).0, 2, "nothing to change");
    let (code, stderr) = shop.fail(&["product", "update", &id, "--remove-image", "77"]);
    assert!(code == 2 && stderr.contains("--remove-image"), "{code}: {stderr}");
    let (code, stderr) = shop.fail(&["product", "list", "--query", "!"]);
    assert!(code == 2 && stderr.contains("--query"), "{code}: {stderr}");
}

#[test]
fn an_image_from_a_file_is_processed_without_a_server() {
    let shop = Shop::new();
    shop.write_image("cup.png");
    let args = ["product", "add", "--user-id", "1234", "--name", "Cup", "--price", "3", "--image", "cup.png", "--wait"];
    let product = shop.json(&args);
    assert_eq!(product["status"], "ready");
    assert_eq!(product["images"][0]["width"], 40);
    assert_eq!(product["compressed_product_images"].as_array().map(Vec::len), Some(1));

    let args = ["reprocess", "--status", "ready", "--wait", "-q"];
    assert_eq!(shop.read(&args), format!("{}\n", product["images"][0]["id"]));
    assert_eq!(shop.read(&["reprocess", "--dry-run"]), "0 images would be processed again\n");
    for args in [&["reprocess", "--wait"][..], &["reprocess"]] {
        let output = shop.run(args);
        let outcome = (output.status.code(), text(&output.stdout), text(&output.stderr));
        assert_eq!(outcome, (Some(0), String::new(), "no image matched; nothing was queued\n".to_owned()));
    }
    let (code, stderr) = shop.fail(&["reprocess", "--preset", "huge", "--status", "all"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("--preset `huge` is unknown; presets: large"), "{stderr}");
}

#[test]
fn a_file_that_is_not_an_image_is_named_and_nothing_is_stored() {
    let shop = Shop::new();
    std::fs::write(shop.path().join("notes.txt"), "no image").expect("a file");
    for file in ["notes.txt", "missing.jpg", "."] {
        let (code, stderr) =
            shop.fail(&["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", file]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.starts_with(&format!("error: --image {file}: ")), "{stderr}");
    }
    assert_eq!(shop.read(&["product", "list", "-q"]), "");
}

#[test]
fn a_failed_image_exits_with_4_and_can_be_retried() {
    let shop = Shop::new();
    std::fs::write(shop.path().join("pm.toml"), "fetch_allow = ['127.0.0.1']\nfetch_timeout = '2s'").expect("a file");
    let origin = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/none.jpg", origin.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in origin.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 1024]);
            let _ = std::io::Write::write_all(
                &mut stream,
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
    });
    let output = shop.run(&[
        "product",
        "add",
        "--user-id",
        "u",
        "--name",
        "n",
        "--price",
        "1",
        "--image",
        &address,
        "--wait",
        "-o",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let product: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(product["images"][0]["error"]["code"], "source_not_found");
    assert_eq!(shop.json(&["reprocess", "--dry-run", "--since", "1h"])["images"], 1);
    assert_eq!(shop.run(&["reprocess", "--wait"]).status.code(), Some(4));
}

#[test]
fn invalid_arguments_and_settings_are_named() {
    let shop = Shop::new();
    assert_eq!(shop.fail(&["product", "add"]).0, 2);
    assert_eq!(shop.fail(&["product", "get", "seven"]).0, 2);
    shop.read(&["migrate", "up"]);
    let (code, stderr) = shop.fail(&["product", "get", "7"]);
    assert_eq!(code, 3);
    assert!(stderr.starts_with("error: product 7 not found"), "{stderr}");

    std::fs::write(shop.path().join("pm.toml"), "lissten = '127.0.0.1:1'\nworkers = 'many'").expect("a file");
    let output = shop.command(&["product", "list"]).env("PM_FETCH_TIMEOUT", "30").output().expect("pm starts");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    for part in [
        "lissten in pm.toml is not a setting",
        "workers in pm.toml is `many`",
        "PM_FETCH_TIMEOUT in the environment is `30`",
    ] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[test]
fn an_unavailable_component_exits_with_5_and_hides_its_password() {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let url = format!("postgres://pm:hunter2@127.0.0.1:{port}/pm");
    let (code, stderr) = Shop::new().fail(&["product", "list", "--database-url", &url]);
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("hint: ") && !stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn settings_are_shown_with_their_source_and_without_secrets() {
    let shop = Shop::new();
    std::fs::write(shop.path().join(".env"), "DB_HOST=db\nDB_USER=shop\nDB_PASSWORD=hunter2\nDB_NAME=shop\n")
        .expect("a file");
    let csv = shop.read(&["config", "-o", "csv", "--redis-url", "redis://:hunter2@cache"]);
    assert!(csv.contains("database_url,postgres://shop:***@db:5432/shop,.env\n"), "{csv}");
    assert!(csv.contains("redis_url,redis://:***@cache,the command line\n"), "{csv}");
    assert!(csv.contains("listen,127.0.0.1:8080,the built-in defaults\n"), "{csv}");
    assert!(!csv.contains("hunter2"));
}

#[test]
fn settings_are_listed_as_a_file_has_them() {
    let shop = Shop::new();
    let csv = shop.read(&["config", "-o", "csv"]);
    for line in ["cache_lifetime,1h,", "gc_every,24h,", "image_memory,512 MiB,", "fetch_max_bytes,32 MiB,"] {
        assert!(csv.contains(&format!("\n{line}")), "{csv}");
    }
    let page = include_str!("../../docs/CONFIG.md");
    let places: Vec<_> =
        csv.lines().skip(1).map(|line| page.find(&format!("### `{}`", line.split(',').next()?))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "the order is that of docs/CONFIG.md: {csv}");
}

#[test]
fn the_secret_of_a_webhook_is_shown_only_when_it_is_added() {
    let shop = Shop::new();
    let added = shop.read(&["webhook", "add", "https://shop.example/hook"]);
    assert!(added.contains("whsec_"), "{added}");
    for args in [&["webhook", "list"][..], &["webhook", "get", "1"], &["webhook", "list", "-o", "csv"]] {
        let shown = shop.read(args);
        assert!(shown.contains("https://shop.example/hook"), "{shown}");
        assert!(!shown.to_lowercase().contains("secret") && !shown.contains("whsec_"), "{shown}");
    }
}

#[test]
fn a_dry_run_of_gc_says_what_would_be_removed() {
    let shop = Shop::new();
    shop.read(&["migrate", "up"]);
    let would = shop.read(&["gc", "--dry-run"]);
    assert!(would.contains("would be removed (dry run)") && !would.contains("\nremoved"), "{would}");
    assert!(shop.read(&["gc"]).starts_with("removed "));
}

#[test]
fn the_hint_for_an_empty_database_names_a_command_that_creates_the_catalog() {
    let shop = Shop::new();
    let hint = |stderr: String| stderr.lines().last().unwrap_or_default().to_owned();
    let (code, stderr) = shop.fail(&["product", "list"]);
    assert!(
        code == 5 && hint(stderr.clone()).starts_with("hint: `pm serve` and `pm migrate up` create one"),
        "{stderr}"
    );
    let output = shop.command(&["serve"]).env("PM_AUTO_MIGRATE", "false").output().expect("pm starts");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(hint(stderr.clone()).contains("`pm migrate up` creates one; with PM_AUTO_MIGRATE=true"), "{stderr}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let shop = Shop::new();
    for number in 0..3 {
        shop.add("1234", &format!("Cup {number}"), "1");
    }
    let args = ["product", "list", "--all", "--limit", "1", "-o", "ndjson"];
    let mut child = shop.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pm starts");
    // Closed before the first page arrives.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("pm ends");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn the_schema_migrates_down_and_up_without_a_prompt_off_a_terminal() {
    let shop = Shop::new();
    let applied = |shop: &Shop| {
        shop.json(&["migrate", "status"])["items"].as_array().expect("items").iter().all(|item| item["applied"] == true)
    };
    let output = shop.run(&["migrate", "up"]);
    let stderr = text(&output.stderr);
    let database = shop.path().join("pm-data/pm.db");
    let place = format!("sqlite://{}: ", database.display());
    assert!(stderr.contains(&place) && stderr.contains("migrations applied"), "{stderr}");
    assert!(applied(&shop));
    shop.add("u", "n", "1");
    let (code, stderr) = shop.fail(&["migrate", "fresh"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("hint: --yes"), "{stderr}");
    shop.read(&["migrate", "fresh", "--yes"]);
    assert!(applied(&shop));
    assert_eq!(shop.read(&["product", "list", "-q"]), "");
    shop.read(&["migrate", "down", "--yes"]);
    assert!(!applied(&shop));
    let output = shop.command(&["product", "list"]).env("PM_AUTO_MIGRATE", "false").output().expect("pm starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("hint: `pm migrate up`"), "{}", text(&output.stderr));
}

#[test]
fn read_commands_create_no_catalog() {
    let shop = Shop::new();
    for args in [
        &["product", "list"][..],
        &["product", "get", "1"],
        &["user", "list"],
        &["key", "list"],
        &["webhook", "list"],
        &["queue", "status"],
        &["queue", "dead"],
        &["reprocess", "--yes"],
        &["migrate", "status"],
        &["gc"],
        &["backup", "--without-secrets", "copy"],
    ] {
        let (code, stderr) = shop.fail(args);
        assert_eq!(code, 5, "pm {args:?}: {stderr}");
        assert!(stderr.contains("no catalog found") && stderr.contains("pm.db does not exist"), "{stderr}");
    }
    let output = shop.run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output.stdout).contains("no catalog found"), "{}", text(&output.stdout));
    let left: Vec<_> = std::fs::read_dir(shop.path()).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn only_serve_and_migrate_up_change_the_schema() {
    let shop = Shop::new();
    shop.add("u", "n", "1");
    shop.read(&["migrate", "down", "--yes"]);
    for args in [&["product", "list"][..], &["user", "add", "--id", "v"], &["worker"], &["gc"]] {
        let (code, stderr) = shop.fail(args);
        assert_eq!(code, 1, "pm {args:?}: {stderr}");
        assert!(stderr.contains("out of date: 1 of") && stderr.contains("hint: `pm migrate up`"), "{stderr}");
    }
    shop.read(&["migrate", "up"]);
    assert_eq!(shop.read(&["product", "list", "-q"]), "1\n");
}

#[test]
fn an_older_program_says_which_version_the_schema_needs() {
    let shop = Shop::new();
    shop.add("u", "n", "1");
    let database = rusqlite::Connection::open(shop.path().join("pm-data/pm.db")).expect("a database");
    database
        .execute_batch("INSERT INTO seaql_migrations VALUES ('m9999_from_the_future', 0)")
        .expect("an unknown migration");
    // A migration that older versions can work with.
    assert_eq!(shop.read(&["product", "list", "-q"]), "1\n");
    let changing = [&["migrate", "up"][..], &["migrate", "down", "--yes"], &["migrate", "fresh", "--yes"]];
    for args in changing {
        let (code, stderr) = shop.fail(args);
        assert_eq!(code, 1, "pm {args:?}: {stderr}");
        let unknown = "does not know these migrations of the database schema: m9999_from_the_future";
        assert!(stderr.contains(unknown), "{stderr}");
        assert!(stderr.contains("hint: only a version of pm that knows these migrations"), "{stderr}");
    }
    database.execute_batch("UPDATE installation SET needs_program = '99.1.0'").expect("a row");
    for args in [&["product", "list"][..], &["migrate", "up"], &["worker"], &["serve"]] {
        let (code, stderr) = shop.fail(args);
        assert_eq!(code, 1, "pm {args:?}: {stderr}");
        assert!(stderr.contains("needs pm 99.1.0 or newer; this is pm "), "{stderr}");
    }
    for args in changing {
        let (code, stderr) = shop.fail(args);
        assert_eq!(code, 1, "pm {args:?}: {stderr}");
        assert!(
            stderr.contains("needs pm 99.1.0 or newer; this is pm ") && stderr.contains("hint: install"),
            "{stderr}"
        );
    }
    let status = shop.run(&["migrate", "status"]);
    assert!(status.status.success(), "{}", text(&status.stderr));
    assert!(text(&status.stderr).contains("needs pm 99.1.0 or newer; this is pm "), "{}", text(&status.stderr));
    let migrations = shop.json(&["migrate", "status"]);
    let last = migrations["items"].as_array().and_then(|items| items.last()).expect("a migration");
    assert_eq!(last, &serde_json::json!({"step": "m9999_from_the_future", "applied": true, "known": false}));
    assert_eq!(migrations["items"][0]["known"], true);
}

#[test]
fn a_command_shows_warnings_as_sentences() {
    let shop = Shop::new();
    shop.add("u", "n", "1");
    std::fs::remove_file(shop.path().join("pm-data/blobs/installation.json")).expect("a marker");
    let mut command = shop.command(&["product", "list", "-q"]);
    command.env("PM_STORAGE_ADOPT", "true").env("PM_LOG_FORMAT", "pretty");
    let output = command.output().expect("pm starts");
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("warning: the blob store now belongs to this installation (installation: "), "{stderr}");
    assert_eq!((text(&output.stdout).as_str(), stderr.lines().count()), ("1\n", 1), "{stderr}");
}

#[cfg(unix)]
#[test]
fn waiting_can_be_interrupted_and_prints_how_to_continue() {
    let shop = Shop::new();
    std::fs::write(shop.path().join("pm.toml"), "fetch_allow = ['127.0.0.1']").expect("a file");
    let origin = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/slow.jpg", origin.local_addr().expect("an address"));
    let args = ["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", &address, "--wait"];
    let child = shop.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pm starts");
    // The worker is downloading the image now, and gets no response.
    let connection = origin.accept().expect("the worker's connection");
    signal("-INT", &child);
    drop(connection);
    let output = child.wait_with_output().expect("pm ends");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(130), ""));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("hint: product 1 is stored"), "{stderr}");
    assert_eq!(shop.json(&["product", "get", "1"])["status"], "processing");
}

#[cfg(unix)]
fn signal(name: &str, child: &Child) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill starts");
    assert!(sent.success());
}

/// A running server that is killed on drop.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[test]
fn serve_prints_its_address_and_shuts_down_cleanly_on_sigterm() {
    let shop = Shop::new();
    let mut command = shop.command(&["serve", "--listen", "127.0.0.1:0", "--log-format", "pretty"]);
    let mut server = Server(command.stderr(Stdio::piped()).spawn().expect("pm starts"));
    let mut lines = BufReader::new(server.0.stderr.take().expect("a pipe")).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| {
            line.split_once("listening on http://").map(|(_, rest)| rest.split(' ').next().unwrap_or(rest).to_owned())
        })
        .expect("an address");
    let mut stream = std::net::TcpStream::connect(&address).expect("a server");
    std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");

    signal("-TERM", &server.0);
    assert_eq!(server.0.wait().expect("it ends").code(), Some(0));
}

#[test]
fn serve_refuses_to_run_without_authentication_unless_allowed() {
    let (code, stderr) = Shop::new().fail(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("hint: PM_AUTH=off"), "{stderr}");
}

#[test]
fn doctor_reports_every_component_and_changes_nothing() {
    let shop = Shop::new();
    shop.add("someone", "Lamp", "10");
    let report: Value = serde_json::from_str(&shop.read(&["doctor", "--json"])).expect("JSON");
    assert_eq!(report["healthy"], true, "{report}");
    let checks: Vec<_> = report["checks"].as_array().expect("a list").iter().map(|check| &check["check"]).collect();
    let components = [
        "database",
        "cache",
        "queue",
        "storage",
        "schema",
        "installation",
        "renditions",
        "isolation",
        "secrets",
        "imaging",
    ];
    let invariants = pm::maintenance::Invariant::ALL.map(pm::maintenance::Invariant::name);
    assert_eq!(checks, [&components[..], &invariants].concat());
    assert!(report["checks"][9]["detail"].as_str().expect("a text").contains(pm::imaging::JPEG_BACKEND));

    let output = shop.run(&["doctor", "--redis-url", "redis://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(5));
    let table = text(&output.stdout);
    assert!(table.lines().any(|line| line.starts_with("cache") && line.contains("failed")), "{table}");
}
