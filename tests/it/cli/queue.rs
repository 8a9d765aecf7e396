//! Tests of `pm queue` and `pm product delete`.

use std::{io::Read as _, net::TcpListener};

use serde_json::{Value, json};

use super::{Shop, text};

/// Returns a shop whose images cannot be downloaded, and their origin's URL.
fn shop() -> (Shop, String) {
    let shop = Shop::new();
    std::fs::write(shop.path().join("pm.toml"), "fetch_allow = ['127.0.0.1']").expect("a file");
    let origin = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", origin.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in origin.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 1024]);
            let none = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = std::io::Write::write_all(&mut stream, none);
        }
    });
    (shop, address)
}

/// Adds a product whose image fails; returns its id.
fn add_failing(shop: &Shop, origin: &str) -> String {
    let image = format!("{origin}/none.jpg?key=s3cret");
    let args = ["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", &image, "--wait", "-q"];
    let output = shop.run(&args);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

#[test]
fn dead_letters_are_listed_shown_requeued_and_removed() {
    let (shop, origin) = shop();
    shop.read(&["migrate", "up"]);
    assert_eq!(shop.read(&["queue", "dead"]), "");
    let products: Vec<_> = (0..3).map(|_| add_failing(&shop, &origin)).collect();
    let ids = shop.read(&["queue", "dead", "-q"]);
    let ids: Vec<_> = ids.lines().collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(shop.read(&["queue", "dead", "list", "--limit", "1", "--all", "-q"]).lines().collect::<Vec<_>>(), ids);
    let table = shop.read(&["queue", "dead"]);
    let head: Vec<_> = table.lines().next().expect("a head").split_whitespace().collect();
    assert_eq!(head, ["JOB", "PRODUCT", "IMAGE", "CODE", "MESSAGE", "ATTEMPTS", "DIED", "AT"]);
    assert!(table.contains("source_not_found") && !table.contains("s3cret"), "{table}");

    let shown = shop.read(&["queue", "dead", "show", ids[2]]);
    assert!(shown.contains(&format!("{origin}/none.jpg?…")) && !shown.contains("s3cret"), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("1 ") && line.contains("failed")), "{shown}");
    let one = shop.json(&["queue", "dead", "show", ids[2]]);
    assert_eq!(
        (one["product_id"].to_string(), one["history"].as_array().map(Vec::len)),
        (products[0].clone(), Some(1))
    );

    assert_eq!(shop.read(&["queue", "dead", "retry", ids[2], "-q"]), format!("{}\n", ids[2]));
    assert_eq!(shop.json(&["product", "get", &products[0]])["status"], "processing");
    let (code, stderr) = shop.fail(&["queue", "dead", "retry", ids[2]]);
    assert_eq!(code, 1);
    assert!(stderr.contains("is not a dead letter") && stderr.contains("hint: `pm queue dead`"), "{stderr}");
    assert_eq!(shop.fail(&["queue", "dead", "retry", "987654"]).0, 3);
    let output = shop.run(&["queue", "dead", "retry", "987654", ids[1]]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert_eq!(shop.read(&["queue", "dead", "retry", "--all", "-q"]), format!("{}\n", ids[0]));
    let status = shop.json(&["queue", "status"]);
    assert_eq!((&status["engine"], &status["queued"], &status["dead"]), (&json!("database"), &json!(3), &json!(0)));

    shop.run(&["reprocess", "--wait"]);
    add_failing(&shop, &origin);
    let (code, stderr) = shop.fail(&["queue", "dead", "purge"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("their images stay failed") && stderr.contains("hint: --yes"), "{stderr}");
    shop.read(&["queue", "dead", "purge", "--yes"]);
    assert_eq!(shop.json(&["queue", "dead"])["items"], json!([]));
    assert_eq!(shop.json(&["product", "list", "--status", "failed"])["items"].as_array().map(Vec::len), Some(4));
    assert_eq!(shop.fail(&["queue", "dead", "show", ids[0]]).0, 3);
    for wrong in [&["retry"][..], &["retry", "1", "--all"], &["list", "--limit", "0"], &["show", "one"]] {
        assert_eq!(shop.fail(&[&["queue", "dead"][..], wrong].concat()).0, 2, "{wrong:?}");
    }
}

#[test]
fn the_state_of_the_queue_is_shown_in_every_format() {
    let (shop, origin) = shop();
    add_failing(&shop, &origin);
    let table = shop.read(&["queue", "status"]);
    for line in ["engine", "queued", "running", "dead", "oldest", "done in the last minute", "messages ready"] {
        assert!(table.lines().any(|shown| shown.starts_with(line)), "{table}");
    }
    let csv = shop.read(&["queue", "status", "-o", "csv"]);
    assert!(csv.ends_with("\ndatabase,0,0,1,,,0,,\n"), "{csv}");
    assert_eq!(shop.read(&["queue", "status", "-q"]), "0\n");
    assert_eq!(shop.json(&["queue", "status"])["broker"], Value::Null);

    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let url = format!("amqp://pm:hunter2@127.0.0.1:{port}");
    let output = shop.run(&["queue", "status", "--rabbitmq-url", &url]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(
        stdout.contains("no answer") && stderr.contains("hint: ") && !stderr.contains("hunter2"),
        "{stdout}{stderr}"
    );
}

#[test]
fn products_are_deleted_only_after_confirmation() {
    let shop = Shop::new();
    let ids: Vec<_> = (0..4).map(|number| shop.add("u", &format!("Cup {number}"), "1")).collect();
    let (code, stderr) = shop.fail(&["product", "delete", &ids[0]]);
    assert_eq!(code, 2);
    assert!(stderr.contains(&format!("This deletes product {} and its images.", ids[0])), "{stderr}");
    assert!(stderr.contains("hint: --yes"), "{stderr}");
    let (code, stderr) = shop.fail(&["product", "delete", "97", "98"]);
    assert!(
        code == 3 && stderr.contains("products 97, 98 not found"),
        "pm asks only about products that exist: {stderr}"
    );
    let (_, stderr) = shop.fail(&["product", "delete", &ids[0], "98", &ids[1]]);
    assert!(stderr.contains("This deletes 2 products and their images."), "{stderr}");
    assert_eq!(shop.read(&["product", "delete", &ids[1], &ids[0], "--yes", "-q"]), format!("{}\n{}\n", ids[0], ids[1]));
    let (code, stderr) = shop.fail(&["product", "delete", &ids[0], &ids[1], "--yes"]);
    assert_eq!(code, 3);
    assert!(stderr.contains(&format!("products {}, {} not found", ids[0], ids[1])), "{stderr}");
    let output = shop.run(&["product", "delete", &ids[0], &ids[2], "--yes"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert_eq!(shop.read(&["product", "list", "-q"]), format!("{}\n", ids[3]));
    assert_eq!(shop.fail(&["product", "delete", "--yes"]).0, 2);
}
