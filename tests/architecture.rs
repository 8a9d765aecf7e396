//! Checks the source tree: allowed imports, where SQL and transactions may appear, and lengths of files and functions.
//! Reads `src/` as text and never runs the program. Each rule is also tested against made-up source trees.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

#[path = "architecture/language.rs"]
mod language;
#[path = "architecture/source.rs"]
mod source;

use source::{Kind, Source, SourceTree};

/// The top-level modules of `src/`, lowest layer first. A module may import only modules of lower layers.
const LAYERS: &[&[&str]] = &[
    &["private_files", "secret"],
    &["code", "clock", "memory", "passphrase", "reload", "retry", "secret_file", "secret_keys"],
    &["domain", "imaging"],
    &["db"],
    &["auth", "cache", "queue", "blobs", "fetch", "isolation"],
    &["api"],
    &["catalog", "health"],
    &["jobs", "maintenance", "resize"],
    &["http", "worker"],
    &["config", "telemetry"],
    &["app"],
    &["cli"],
];

/// Modules with a restricted list of importers. All other modules use `catalog`, which owns the transactions, or
/// `maintenance`, which reads and writes whole tables. The in-process cache asks `db` whether another process has
/// written, and the queue listens for PostgreSQL's notifications through `db`.
const RESERVED: &[(&str, &[&str])] = &[
    ("db", &["cache", "queue", "catalog", "maintenance", "health", "config", "app", "cli"]),
    ("jobs", &["worker", "app"]),
    ("resize", &["http", "config", "app"]),
];

/// Modules that do no I/O. `OUTSIDE` lists the paths that would give them I/O.
const PURE: &[&str] = &["domain", "imaging"];
const OUTSIDE: &[&[&str]] = &[
    &["tokio", "::"],
    &["reqwest", "::"],
    &["sea_orm", "::"],
    &["redis", "::"],
    &["lapin", "::"],
    &["object_store", "::"],
    &["std", "::", "fs"],
    &["std", "::", "env"],
    &["std", "::", "process"],
    &["TcpStream"],
];

const MAX_FILE_LINES: usize = 400;
const MAX_FUNCTION_LINES: usize = 70;

/// Files outside `db` that may use SQL and the database driver: the queue listens for PostgreSQL's notifications.
const SQL_FILES: &[&str] = &["src/queue/database.rs", "src/queue/mod.rs"];

/// Strings that start an SQL statement.
const STATEMENTS: &[&str] = &[
    "SELECT ",
    "INSERT INTO ",
    "UPDATE ",
    "DELETE FROM ",
    "CREATE TABLE",
    "ALTER TABLE",
    "DROP ",
    "PRAGMA ",
    "LISTEN ",
    "NOTIFY ",
    "BEGIN",
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn imports_only_from_below(tree: &SourceTree) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in &tree.sources {
        let Some(module) = source.top_module() else { continue };
        let Some(own) = layer(module) else {
            complaints.push(format!("{}:1: `{module}` is missing from LAYERS", source.path));
            continue;
        };
        for import in source.imports() {
            let Some(target) = import.target.first().filter(|target| *target != module) else { continue };
            let at = format!("{}:{}", source.path, import.line);
            match layer(target) {
                Some(other) if other < own => {}
                Some(other) => {
                    let relation = if other == own { "in the same layer as" } else { "above" };
                    complaints.push(format!("{at}: `{module}` imports `{target}`, which is {relation} it"));
                }
                None => complaints.push(format!("{at}: `{module}` imports `crate::{target}`, which is not a module")),
            }
        }
    }
    complaints
}

fn reserved_modules_are_imported_only_by_their_owners(tree: &SourceTree) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in &tree.sources {
        let Some(module) = source.top_module() else { continue };
        for import in source.imports() {
            let Some(target) = import.target.first().filter(|target| *target != module) else { continue };
            let owners = RESERVED.iter().find(|(reserved, _)| reserved == target).map(|(_, owners)| *owners);
            if owners.is_some_and(|owners| !owners.contains(&module)) {
                let at = format!("{}:{}", source.path, import.line);
                complaints.push(format!(
                    "{at}: `{module}` imports `{target}`, which is reserved for other modules (see RESERVED)"
                ));
            }
        }
    }
    complaints
}

fn modules_do_not_import_each_other_in_cycles(tree: &SourceTree) -> Vec<String> {
    cycles(tree, |parent| parent.is_empty())
}

fn submodules_do_not_import_each_other_in_cycles(tree: &SourceTree) -> Vec<String> {
    cycles(tree, |parent| !parent.is_empty())
}

/// Finds cyclic imports between the children of a module. A parent and its child may import each other: the parent
/// re-exports items of its children.
fn cycles(tree: &SourceTree, counts: impl Fn(&[String]) -> bool) -> Vec<String> {
    // Parent module → importing child → imported child → location of the import.
    let mut graphs: BTreeMap<&[String], BTreeMap<&str, BTreeMap<&str, String>>> = BTreeMap::new();
    let imports: Vec<_> = tree.sources.iter().map(|source| (source, source.imports())).collect();
    for (source, imports) in &imports {
        for import in imports {
            let target = tree.module_of(&import.target);
            let shared = source.module.iter().zip(target).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (source.module.get(shared), target.get(shared)) {
                let at = format!("{}:{}", source.path, import.line);
                let graph = graphs.entry(&target[..shared]).or_default();
                graph.entry(from).or_default().entry(to).or_insert(at);
            }
        }
    }
    let mut complaints = Vec::new();
    for (parent, graph) in graphs.iter().filter(|(parent, _)| counts(parent)) {
        for (from, edges) in graph {
            for (to, at) in edges.iter().filter(|(to, _)| reaches(graph, to, from)) {
                complaints
                    .push(format!("{at}: `{from}` imports `{to}`, which imports `{from}` ({})", parent.join("::")));
            }
        }
    }
    complaints
}

fn reaches(graph: &BTreeMap<&str, BTreeMap<&str, String>>, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        if next == to {
            return true;
        }
        if seen.insert(next) {
            open.extend(graph.get(next).into_iter().flat_map(|edges| edges.keys().copied()));
        }
    }
    false
}

fn pure_modules_do_no_io(tree: &SourceTree) -> Vec<String> {
    complaints(tree, |source| {
        if !source.top_module().is_some_and(|module| PURE.contains(&module)) {
            return Vec::new();
        }
        let found = OUTSIDE.iter().flat_map(|words| source.lines_with(words).map(|line| (line, words.concat())));
        found.map(|(line, words)| (line, format!("`{words}` in a module that must not do I/O"))).collect()
    })
}

fn sql_is_only_in_db(tree: &SourceTree) -> Vec<String> {
    complaints(tree, |source| {
        if source.top_module() == Some("db") || SQL_FILES.contains(&source.path.as_str()) {
            return Vec::new();
        }
        let drivers = ["sea_orm", "sqlx", "rusqlite"];
        let named = source.tokens.iter().filter(|token| token.kind == Kind::Word && drivers.contains(&&*token.text));
        let named = named.map(|token| (token.line, format!("`{}` outside `db`", token.text)));
        let texts = source.tokens.iter().filter(|token| token.kind == Kind::Text);
        let statements = texts.filter(|token| {
            let content = token.text.trim_start_matches(|sign: char| sign != '"').trim_start_matches('"').trim_start();
            STATEMENTS.iter().any(|start| content.starts_with(start))
        });
        named.chain(statements.map(|token| (token.line, "SQL outside `db`".to_owned()))).collect()
    })
}

/// Finds `*` in place of a list of columns. After a column is added to the table, a prepared statement with `*` makes
/// SQLite's driver panic, and PostgreSQL refuses it.
fn statements_name_their_columns(tree: &SourceTree) -> Vec<String> {
    complaints(tree, |source| {
        let texts = source.tokens.iter().filter(|token| token.kind == Kind::Text);
        let every_column = texts.filter(|token| {
            let words: Vec<_> = token.text.split(|sign: char| sign.is_whitespace() || "\"(,)".contains(sign)).collect();
            let before =
                |at: usize| words[..at].iter().rev().find(|word| !word.is_empty()).map(|word| word.to_uppercase());
            let starts = |word: &str| ["SELECT", "RETURNING", "DISTINCT", "ALL"].contains(&word);
            words.iter().enumerate().any(|(at, word)| match *word {
                "*" => before(at).is_some_and(|word| starts(&word)),
                word => {
                    word.strip_suffix(".*").is_some_and(|table| table.chars().all(|c| c.is_alphanumeric() || c == '_'))
                }
            })
        });
        let places = every_column.map(|token| (token.line, "the statement does not name its columns".to_owned()));
        let asterisks = source.lines_with(&["Asterisk"]).map(|line| (line, "`Asterisk` names no columns".to_owned()));
        if source.top_module() == Some("db") { places.chain(asterisks).collect() } else { Vec::new() }
    })
}

fn transactions_begin_only_in_catalog_and_maintenance(tree: &SourceTree) -> Vec<String> {
    complaints(tree, |source| {
        if ["db", "catalog", "maintenance"].map(Some).contains(&source.top_module()) {
            return Vec::new();
        }
        let calls: [&[&str]; 4] = [
            &[".", "begin", "(", ")"],
            &[".", "begin_with_config", "("],
            &[".", "transaction", ":"],
            &[".", "transaction", "("],
        ];
        let found = calls.iter().flat_map(|call| source.lines_with(call));
        found.map(|line| (line, "transaction begins outside `catalog` and `maintenance`".to_owned())).collect()
    })
}

fn anyhow_is_used_only_in_cli(tree: &SourceTree) -> Vec<String> {
    complaints(tree, |source| {
        if source.top_module() == Some("cli") {
            return Vec::new();
        }
        source.lines_with(&["anyhow"]).map(|line| (line, "`anyhow` outside `cli`".to_owned())).collect()
    })
}

fn unwrap_is_not_used_outside_tests(tree: &SourceTree) -> Vec<String> {
    complaints(tree, |source| {
        let found = source.lines_with(&[".", "unwrap", "(", ")"]);
        found
            .map(|line| (line, "`.unwrap()` outside tests; use `expect` with the reason why it cannot fail".to_owned()))
            .collect()
    })
}

fn files_start_with_a_module_comment(tree: &SourceTree) -> Vec<String> {
    complaints(tree, |source| {
        let says = source.first_line.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty());
        if says { Vec::new() } else { vec![(1, "the file does not start with `//!`".to_owned())] }
    })
}

fn files_are_short(tree: &SourceTree) -> Vec<String> {
    complaints(tree, |source| {
        let lines = source.lines;
        if lines <= MAX_FILE_LINES {
            return Vec::new();
        }
        vec![(1, format!("{lines} lines without tests; at most {MAX_FILE_LINES}"))]
    })
}

fn functions_are_short(tree: &SourceTree) -> Vec<String> {
    complaints(tree, |source| {
        let mut found = Vec::new();
        for at in (0..source.tokens.len()).filter(|at| source.is(*at, "fn")) {
            let Some(open) = body_of_function(source, at) else { continue };
            let line = source.tokens[at].line;
            let lines = source.tokens[source.closing(open)].line - line + 1;
            if lines > MAX_FUNCTION_LINES {
                let name = &source.tokens[at + 1].text;
                found.push((line, format!("`{name}` has {lines} lines; at most {MAX_FUNCTION_LINES}")));
            }
        }
        found
    })
}

/// Returns the index of the body's opening brace; `None` for a declaration or a function type.
fn body_of_function(source: &Source, at: usize) -> Option<usize> {
    let is_named = source.tokens.get(at + 1).is_some_and(|token| token.kind == Kind::Word);
    let mut nested = 0_i32;
    for next in (at + 1..source.tokens.len()).filter(|_| is_named) {
        if source.is(next, "(") || source.is(next, "[") {
            nested += 1;
        } else if source.is(next, ")") || source.is(next, "]") {
            nested -= 1;
        } else if nested == 0 && source.is(next, ";") {
            return None;
        } else if nested == 0 && source.is(next, "{") {
            return Some(next);
        }
    }
    None
}

/// Applies a rule to each file and formats its complaints as `path:line: message`.
fn complaints(tree: &SourceTree, rule: impl Fn(&Source) -> Vec<(usize, String)>) -> Vec<String> {
    let of_one = |source: &Source| -> Vec<String> {
        rule(source).into_iter().map(|(line, words)| format!("{}:{line}: {words}", source.path)).collect()
    };
    tree.sources.iter().flat_map(of_one).collect()
}

/// Returns the violations of a rule, without duplicates.
fn broken(rule: impl Fn(&SourceTree) -> Vec<String>, tree: &SourceTree) -> Vec<String> {
    let mut found = rule(tree);
    found.dedup();
    found
}

/// Declares three tests for a rule: `src/` passes, a made-up tree that breaks it fails, and one that keeps it passes.
macro_rules! rules {
    ($($rule:ident { keeps: $keeps:expr, breaks: $breaks:expr, at: $places:expr $(,)? })+) => {$(
        mod $rule {
            #[test]
            fn the_source_tree_passes() {
                let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
                let found = super::broken(super::$rule, &super::SourceTree::read(super::Path::new(&root)));
                assert!(found.is_empty(), "{} against {}:\n{}", found.len(), stringify!($rule), found.join("\n"));
            }

            #[test]
            fn violations_are_found() {
                let found = super::broken(super::$rule, &super::SourceTree::of($breaks));
                let places: Vec<_> = found.iter().map(|words| words.split(": ").next().unwrap_or_default()).collect();
                assert_eq!(places, $places, "{found:#?}");
            }

            #[test]
            fn valid_code_passes() {
                let found = super::broken(super::$rule, &super::SourceTree::of($keeps));
                assert!(found.is_empty(), "{found:#?}");
            }
        }
    )+};
}

rules! {
    imports_only_from_below {
        keeps: [
            ("lib.rs", "pub mod cli;"),
            ("catalog/mod.rs", "use crate::{cache::{self, Cache}, db::jobs, domain::*};\nuse self::body::Body;\nmod body;"),
            ("catalog/body.rs", "// crate::http\n/* /* crate::http */ crate::cli */ const A: &str = \"crate::http\";
                const B: &str = r#\"\"crate::http\"#; const C: char = '\"'; pub(in crate::catalog) fn f<'a>() {}
                use super::super::db;\n#[cfg(test)]\nmod tests { use crate::http; }"),
            ("catalog/read.rs", "#[cfg(test)]\nmod tests;"),
            ("catalog/read/tests.rs", "use crate::http;"),
        ],
        breaks: [
            ("cache/mod.rs", "use crate::{\n    code,\n    queue::{self, Queue},\n};"),
            ("db.rs", "fn f() { let _ = crate::catalog::Catalog; }"),
            ("fetch/mod.rs", "mod inner {\n    use super::super::cli;\n    use super::error;\n}"),
            ("queue/rabbit/line.rs", "use super::super::super::app::App;"),
            ("nowhere.rs", ""),
            ("worker.rs", "use crate::{jobs, elsewhere};\nuse crate::*;\nmacro_rules! m { () => { $crate::http::f() } }"),
        ],
        at: [
            "src/cache/mod.rs:3", "src/db.rs:1", "src/fetch/mod.rs:2", "src/queue/rabbit/line.rs:1", "src/nowhere.rs:1",
            "src/worker.rs:1", "src/worker.rs:2", "src/worker.rs:3",
        ],
    }
    reserved_modules_are_imported_only_by_their_owners {
        keeps: [("catalog/mod.rs", "use crate::db;"), ("worker.rs", "use crate::jobs;"), ("db/mod.rs", "use crate::db;")],
        breaks: [("http/mod.rs", "use crate::db::Database;"), ("cli/mod.rs", "use crate::{app, jobs::Handler};")],
        at: ["src/http/mod.rs:1", "src/cli/mod.rs:1"],
    }
    modules_do_not_import_each_other_in_cycles {
        keeps: [("a/mod.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", ""), ("d.rs", "use crate::{a, c};")],
        breaks: [
            ("a/mod.rs", "use crate::b;"),
            ("b.rs", "\nuse crate::c::{self, C};"),
            ("c.rs", "use super::a::A;"),
            ("d.rs", "use crate::a;"),
        ],
        at: ["src/a/mod.rs:1", "src/b.rs:2", "src/c.rs:1"],
    }
    submodules_do_not_import_each_other_in_cycles {
        keeps: [
            ("a/mod.rs", "mod one;\nmod two;\npub use self::one::One;"),
            ("a/one.rs", "use super::{Error, two::Two};"),
            ("a/two.rs", "use super::Error;\n#[cfg(test)]\nuse super::one::One;"),
        ],
        breaks: [
            ("a/one.rs", "use super::{two::Two, three};"),
            ("a/two/mod.rs", "mod deep;"),
            ("a/two/deep.rs", "use crate::a::one;"),
            ("a/three.rs", ""),
        ],
        at: ["src/a/one.rs:1", "src/a/two/deep.rs:1"],
    }
    pure_modules_do_no_io {
        keeps: [("imaging/mod.rs", "use std::io::Read; // tokio::spawn"), ("fetch.rs", "use tokio::net;")],
        breaks: [("imaging/mod.rs", "use tokio::task;"), ("domain/job.rs", "\nfn f() { std::fs::read(\"\"); }")],
        at: ["src/imaging/mod.rs:1", "src/domain/job.rs:2"],
    }
    sql_is_only_in_db {
        keeps: [
            ("db/mod.rs", "use sea_orm::Value; const A: &str = \"SELECT 1\";"),
            ("queue/database.rs", "const A: &str = \"LISTEN jobs\";"),
            ("http/route.rs", "const A: &str = \"DELETE\"; // SELECT 1"),
            ("cli/mod.rs", "#[cfg(test)]\nmod tests { const A: &str = \"SELECT 1\"; }"),
        ],
        breaks: [
            ("catalog/mod.rs", "use sea_orm::Value;"),
            ("jobs.rs", "\nconst A: &str = r#\"\n  SELECT 1\"#;"),
            ("app.rs", "fn f() { g(&format!(\"DROP TABLE {}\", 1)) }"),
        ],
        at: ["src/catalog/mod.rs:1", "src/jobs.rs:2", "src/app.rs:1"],
    }
    statements_name_their_columns {
        keeps: [
            ("db/mod.rs", "const A: &str = \"SELECT count(*), price * 2 FROM t WHERE a RETURNING id\"; // SELECT *"),
            ("http/mod.rs", "const A: &str = \"RETURNING *\";"),
            ("db/changes.rs", "#[cfg(test)]\nmod tests { const A: &str = \"SELECT * FROM t\"; }"),
        ],
        breaks: [
            ("db/mod.rs", "const A: &str = \"SELECT * FROM t\";\nconst B: &str = \"UPDATE t SET a = 1\n RETURNING *\";"),
            ("db/jobs.rs", "const A: &str = \"SELECT a.id, b.* FROM a, b\";\nfn f() { column(Asterisk) }"),
            ("db/users.rs", "const A: &str = \"(SELECT DISTINCT * FROM t)\";"),
        ],
        at: ["src/db/mod.rs:1", "src/db/mod.rs:2", "src/db/jobs.rs:1", "src/db/jobs.rs:2", "src/db/users.rs:1"],
    }
    transactions_begin_only_in_catalog_and_maintenance {
        keeps: [
            ("catalog/mod.rs", "fn f() { self.database().begin().await }"),
            ("http/mod.rs", "fn f() { observer.begin(verb) }"),
        ],
        breaks: [("worker.rs", "fn f() {\n    database.begin().await;\n    database.transaction(f);\n}")],
        at: ["src/worker.rs:2", "src/worker.rs:3"],
    }
    anyhow_is_used_only_in_cli {
        keeps: [("cli/failure.rs", "use anyhow::Error;"), ("app.rs", "// anyhow")],
        breaks: [("app.rs", "fn f() -> anyhow::Result<()> {}")],
        at: ["src/app.rs:1"],
    }
    unwrap_is_not_used_outside_tests {
        keeps: [
            ("a.rs", "fn f() { x.unwrap_or(1); x.expect(\".unwrap()\"); }\n#[cfg(test)]\nmod tests { fn g() { x.unwrap() } }"),
        ],
        breaks: [("a.rs", "fn f() {\n    let _ = '\"';\n    x\n        .unwrap();\n}")],
        at: ["src/a.rs:4"],
    }
    files_start_with_a_module_comment {
        keeps: [("a.rs", "//! What it is for.\n")],
        breaks: [("a.rs", "// What it is for.\n"), ("b.rs", "//!\nuse x;"), ("c.rs", "")],
        at: ["src/a.rs:1", "src/b.rs:1", "src/c.rs:1"],
    }
    files_are_short {
        keeps: [
            ("a.rs", &*"\n".repeat(400)),
            ("b.rs", &format!("const A: u8 = 1;\n#[cfg(test)]\nmod tests {{{}}}\n", "\n".repeat(400))),
        ],
        breaks: [("a.rs", &*"\n".repeat(401)), ("b.rs", "const A: u8 = 1;")],
        at: ["src/a.rs:1"],
    }
    functions_are_short {
        keeps: [
            ("a.rs", &*format!("fn f() {{{}}}\nfn g() {{{0}}}", "\n".repeat(69))),
            ("b.rs", "trait A { fn f(g: fn(u8) -> u8) -> [u8; 3]; }"),
            ("c.rs", &format!("struct A {{ f: fn(), {} }}", "\n".repeat(99))),
        ],
        breaks: [("a.rs", &*format!("struct A;\nfn f(x: [u8; 3]) -> u8 {{{}if x {{}} }}", "\n".repeat(70)))],
        at: ["src/a.rs:2"],
    }
}

/// Literals that begin like a metric but are none: channels of PostgreSQL, a prefix of buckets, and the start of keys.
const NO_METRICS: &[&str] = &["pm_", "pm_jobs", "pm_events", "pm_job"];

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let tree = SourceTree::read(Path::new(&root));
    let texts = tree.sources.iter().flat_map(|source| &source.tokens).filter(|token| token.kind == Kind::Text);
    let is_name = |text: &&str| text.starts_with("pm_") && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let exported: BTreeSet<_> = texts
        .map(|token| token.text.trim_matches('"'))
        .filter(is_name)
        .filter(|text| !NO_METRICS.contains(text))
        .collect();
    let page = std::fs::read_to_string(Path::new(&root).join("docs/OPERATIONS.md")).expect("a page");
    let section = page.split("\n## ").find(|section| section.starts_with("Metrics")).expect("a section about metrics");
    let names = section.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let documented: BTreeSet<_> = names.flat_map(|cell| cell.split('`')).filter(is_name).collect();
    assert_eq!(exported, documented, "left: metrics in src/; right: the table in docs/OPERATIONS.md");
}

#[test]
fn replaced_words_are_not_used() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let found = language::replaced_words(Path::new(&root));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn replaced_words_are_found_inside_identifiers() {
    let found = |line| language::in_line(line).map(|(was, _)| was).collect::<Vec<_>>();
    assert_eq!(found("struct EventHerald; // Told twice."), ["told", "herald"]);
    assert_eq!(found("let all_pictures = 1;"), ["pictures"]);
    assert!(found("let image = untold + engraved;").is_empty());
}
