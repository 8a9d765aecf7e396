//! P21: retries follow the schedule. An origin misbehaves in every known way; each image fails at once, or is retried
//! as often and after the delays that docs/ERRORS.md says.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::{net::TcpListener, time::sleep};

use crate::{
    images,
    measurements::counts,
    origin::Origin,
    soundness::{self, Counts},
    stage::Stage,
};

/// The expected end of a kind of failure.
struct Case {
    what: String,
    url: String,
    code: &'static str,
    /// Number of attempts.
    attempts: usize,
    /// The `Retry-After` of the origin, if any.
    asked_for: Option<Duration>,
}

/// A job's attempt in the database.
type Attempt = (String, i32, i64, i64, String);

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    // A silent origin has a time limit of its own; this one is for the whole download.
    stage.configure("PM_FETCH_TIMEOUT", "3s");
    let (origin, no_tls) = (Origin::start().await, closes_at_once().await?);
    origin.serve("/late.jpg", "image/jpeg", images::jpeg(64, 64));
    let cases = cases(&origin, no_tls).await?;
    let mut server = stage.serve(&["--no-worker"]).await?;
    let mut worker = stage.worker("worker", 4).await?;
    let mut ids = Vec::new();
    for case in &cases {
        let made = server.api().create(&case.what, std::slice::from_ref(&case.url)).await;
        ids.push(made.with_context(|| case.what.clone())?["images"][0]["id"].as_i64().context("a number")?);
    }
    let followed = cases.iter().zip(&ids).map(|(case, id)| follow(stage, case, *id));
    let deviations = try_join_all(followed).await?.concat();
    let worst = deviations.iter().copied().fold(0.0, f64::max);
    for (case, id) in cases.iter().zip(&ids) {
        let (state, attempts, _, _, code) = job(stage, *id).await?;
        let made = (state.as_str(), code.as_str(), usize::try_from(attempts)?);
        anyhow::ensure!(made == ("dead", case.code, case.attempts), "{} ended as {made:?}", case.what);
    }
    origin.fail_first("/late.jpg", 2, 503);
    let late = server.api().create("late", &[origin.url("/late.jpg")]).await?["images"][0]["id"].as_i64();
    let late = late.context("a number")?;
    for attempt in 1..=2 {
        wait_for(stage, late, attempt).await?;
        stage.execute("UPDATE jobs SET run_at = 0, dispatched_at = NULL WHERE state = 'queued'").await?;
    }
    stage.settled(Duration::from_secs(20)).await?;
    let (state, attempts, ..) = job(stage, late).await?;
    anyhow::ensure!(
        (state.as_str(), attempts) == ("done", 3),
        "an image that arrived late ended as {state}, {attempts}"
    );
    let mut counts = counts(json!({
        "cases": cases.len(), "delays_checked": deviations.len(), "furthest_from_nominal_percent": (worst * 1_000.0).round() / 10.0,
    }));
    counts.extend(soundness::check(stage).await?);
    worker.kill().await;
    server.process.kill().await;
    Ok(counts)
}

/// Returns a port that closes connections before any response, so that no TLS handshake succeeds.
async fn closes_at_once() -> anyhow::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 64]).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            });
        }
    });
    Ok(address)
}

async fn cases(origin: &Origin, no_tls: std::net::SocketAddr) -> anyhow::Result<Vec<Case>> {
    let case =
        |what: &str, url: String, code, attempts| Case { what: what.to_owned(), url, code, attempts, asked_for: None };
    let mut all = Vec::new();
    let statuses = [
        (400, "source_refused", 1),
        (401, "source_forbidden", 1),
        (403, "source_forbidden", 1),
        (404, "source_not_found", 1),
        (410, "source_not_found", 1),
        (415, "source_refused", 1),
        (418, "source_refused", 1),
        (451, "source_refused", 1),
        (304, "redirect_refused", 1),
        (408, "source_unavailable", 5),
        (425, "source_unavailable", 5),
        (429, "source_unavailable", 5),
        (500, "source_unavailable", 5),
        (502, "source_unavailable", 5),
        (503, "source_unavailable", 5),
        (504, "source_unavailable", 5),
        (599, "source_unavailable", 5),
    ];
    for (status, code, attempts) in statuses {
        all.push(case(&format!("status {status}"), origin.url(&format!("/status/{status}")), code, attempts));
    }
    let asked = |seconds: u64| Some(Duration::from_secs(seconds));
    let wish = |what: &str, wish: &str, asked_for| {
        let wish: String = url::form_urlencoded::byte_serialize(wish.as_bytes()).collect();
        let url = origin.url(&format!("/status/503?retry-after={wish}"));
        Case { asked_for, ..case(what, url, "source_unavailable", 5) }
    };
    all.push(wish("asks for 120 s", "120", asked(120)));
    all.push(wish("asks for a day", "86400", asked(3_600)));
    all.push(wish("asks for no time", "0", None));
    all.push(wish("sends an invalid Retry-After", "soon", None));
    let date = std::time::SystemTime::now() + Duration::from_secs(1_800);
    all.push(wish("asks for a date", &httpdate::fmt_http_date(date), asked(1_800)));
    all.push(case("redirects for ever", origin.url("/redirect-loop"), "redirect_refused", 1));
    all.push(case("resets", origin.url("/reset"), "connect_failed", 5));
    all.push(case("breaks off", origin.url("/short"), "connect_failed", 5));
    all.push(case("never answers", origin.url("/stall"), "timed_out", 5));
    all.push(case("never ends", origin.url("/drip"), "timed_out", 5));
    all.push(case("is too large", origin.url("/endless"), "too_large", 1));
    let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    all.push(case("does not listen", format!("http://{closed}/"), "connect_failed", 5));
    all.push(case("has no TLS", format!("https://{no_tls}/"), "tls_failed", 5));
    // Without a name server no one can say that a name does not exist.
    let name = "no-such-host.invalid";
    let found = tokio::net::lookup_host((name, 80)).await;
    let unknown = found.is_err_and(|error| error.to_string().contains("not known"));
    let (code, attempts) = if unknown { ("host_not_found", 2) } else { ("dns_failed", 5) };
    all.push(case("does not exist", format!("http://{name}/"), code, attempts));
    Ok(all)
}

/// Runs all attempts of a case; returns the relative error of each delay.
async fn follow(stage: &Stage, case: &Case, id: i64) -> anyhow::Result<Vec<f64>> {
    let mut deviations = Vec::new();
    for attempt in 1..case.attempts {
        let number = i32::try_from(attempt)?;
        let (state, attempts, run_at, updated_at, code) =
            wait_for(stage, id, number).await.with_context(|| case.what.clone())?;
        // On a busy machine the next attempt may be due before this one was read.
        if attempts > number {
            continue;
        }
        let made = (state.as_str(), attempts, code.as_str());
        anyhow::ensure!(made == ("queued", number, case.code), "{}, attempt {attempt}: {made:?}", case.what);
        let delay = Duration::from_micros(u64::try_from(run_at - updated_at).context("a delay")?).as_secs_f64();
        let nominal = case.asked_for.map_or(5.0 * 2_f64.powi(number - 1), |asked| asked.as_secs_f64());
        let deviation = (delay - nominal).abs() / nominal;
        // A date comes closer while the job waits.
        let allowed = if case.asked_for.is_some() { 0.05 } else { 0.201 };
        anyhow::ensure!(deviation <= allowed, "{}: after attempt {attempt}: {delay:.1} s, not {nominal} s", case.what);
        deviations.push(deviation);
        // The recorded delay need not be waited for.
        let due = "UPDATE jobs SET run_at = 0, dispatched_at = NULL WHERE state = 'queued'";
        stage.execute(&format!("{due} AND attempt = {number} AND image_id = {id}")).await?;
    }
    wait_for(stage, id, i32::try_from(case.attempts)?).await.with_context(|| case.what.clone())?;
    Ok(deviations)
}

/// Returns the job of this image once the attempt has ended.
async fn wait_for(stage: &Stage, image: i64, attempt: i32) -> anyhow::Result<Attempt> {
    let began = Instant::now();
    loop {
        let job = job(stage, image).await?;
        if job.1 >= attempt && job.0 != "running" {
            return Ok(job);
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "attempt {attempt} has not ended: {job:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn job(stage: &Stage, image: i64) -> anyhow::Result<Attempt> {
    let sql = format!(
        "SELECT state, attempt, run_at, updated_at, coalesce(error_code, '') FROM jobs WHERE image_id = {image}"
    );
    let rows = stage.rows(&sql).await?;
    Ok(rows.first().context("no job")?.try_get_many_by_index()?)
}
