//! P11: no request reaches a forbidden address. In a network namespace with only a loopback, in which every address
//! leads to a trap, the program gets every spelling of forbidden addresses: directly, as redirects, by names. It
//! connects to none of them, while a client without a guard reaches most.
//!
//! This never runs outside such a namespace, since the client without a guard would reach real addresses.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use pm::fetch::{Config, Fetcher};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    api::Api,
    inputs::{
        forbidden,
        trap::{self, Trap},
    },
    parts::Part,
    processes::{Process, Spec},
    program,
    soundness::Counts,
    stage::Stage,
    wrapped,
};

/// The API's address inside, which no form leads to.
const LISTEN: &str = "127.9.9.9:12345";
/// The name server's address, and the resolver files that name it.
const SET_UP: &str = r#"
set -e
ip link set lo up
# Every address there is belongs to this network's own loopback.
ip route add local 0.0.0.0/0 dev lo
ip -6 route add local ::/0 dev lo || true
mount --make-rprivate /
printf 'nameserver 127.0.0.53\noptions timeout:1 attempts:1\n' > "$CHAOS_FILES/resolv.conf"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$CHAOS_FILES/hosts"
printf 'hosts: files dns\n' > "$CHAOS_FILES/nsswitch.conf"
for file in resolv.conf hosts nsswitch.conf; do
  [ ! -e "/etc/$file" ] || mount --bind "$CHAOS_FILES/$file" "$(readlink -f "/etc/$file")"
done
exec "$@"
"#;

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let part = Part::Network.spec(stage, "inside")?;
    let Some(unshare) = wrapped::unshare(stage, &["--net", "--mount"]).await? else { return Ok(wrapped::skipped()) };
    let network = Spec { program: "unshare".into(), ..part.clone() };
    let network = network.arguments(unshare).arguments(["sh", "-c", SET_UP, "sh"]).arguments([part.program]);
    let mut network = network
        .variable("CHAOS_FILES", stage.directory.display().to_string())
        .variable("PM_LISTEN", LISTEN)
        .variable("CHAOS_HOPS", stage.size("1", "2"))
        .variable("CHAOS_PROGRAM", program::path().display().to_string());
    // Also tries the forms from a file, if one is given.
    if let Ok(list) = std::env::var("CHAOS_FORBIDDEN_URLS") {
        network = network.variable("CHAOS_FORBIDDEN_URLS", list);
    }
    network.environment.remove("PM_FETCH_ALLOW");
    let printed = network.succeed(Duration::from_secs(stage.size(90, 600))).await?;
    let printed: Value =
        serde_json::from_str(printed.lines().last().unwrap_or_default()).context("the output of the isolated part")?;
    let counts = crate::measurements::counts(printed);
    anyhow::ensure!(counts["reached_by_pm"] == 0, "{counts:?}");
    let weak = counts["reached_by_weak_client"].as_u64().unwrap_or(0);
    anyhow::ensure!(weak > 50, "a client without a guard reached only {weak} addresses, so the traps prove nothing");
    anyhow::ensure!(counts["public_images_ready"] == counts["public_images"], "{counts:?}");
    Ok(counts)
}

/// Runs inside the namespace: starts the traps, then tries all forms with the weak client and the program.
pub async fn inside() -> anyhow::Result<()> {
    let interfaces = std::fs::read_to_string("/proc/net/dev").context("reading the network interfaces")?;
    let alone = interfaces.lines().skip(2).all(|line| line.trim_start().starts_with("lo:"));
    anyhow::ensure!(alone, "not in an isolated network namespace, so the experiment does not run");
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let trap = Trap::set().await?;
    let mut forms = forbidden::urls();
    if let Ok(list) = std::env::var("CHAOS_FORBIDDEN_URLS") {
        let given = std::fs::read_to_string(&list).with_context(|| list.clone())?;
        forms.extend(given.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    let direct = forms.len();
    // Only the full form tries two redirects to each.
    let hops = std::env::var("CHAOS_HOPS")?.parse()?;
    let redirects: Vec<_> = forms.iter().flat_map(|form| trap::redirects_to(form).into_iter().take(hops)).collect();
    forms.extend(redirects);

    let reached_by_weak_client = weakly(&trap, &forms).await;
    trap.forget();
    let by_downloader = downloader(&forms).await?;
    let reached_by_downloader = trap.caught();
    trap.forget();
    let by_program = whole_program(&forms).await?;
    let reached_by_pm = reached_by_downloader.len() + trap.caught().len();
    for (address, path) in reached_by_downloader.iter().chain(&trap.caught()) {
        eprintln!("reached {address} by {path}");
    }
    let (images, ready) = public_images(&trap).await?;
    println!(
        "{}",
        json!({
            "forms": forms.len(), "direct_forms": direct, "reached_by_weak_client": reached_by_weak_client,
            "reached_by_pm": reached_by_pm, "downloads_refused": by_downloader, "refused_at_once": by_program.0,
            "refused_by_the_worker": by_program.1, "public_images": images, "public_images_ready": ready,
        })
    );
    Ok(())
}

/// Counts the forms that lead a client without a guard to a forbidden address.
async fn weakly(trap: &Trap, forms: &[String]) -> usize {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(500)).build();
    let client = client.expect("a client without TLS roots needs nothing of the machine");
    let mut reached = 0;
    for form in forms {
        trap.forget();
        // Only the connection matters, not the response.
        let _ = client.get(form).send().await;
        reached += usize::from(!trap.caught().is_empty());
    }
    reached
}

/// Fetches all forms with the worker's downloader, without the API; returns the number of failures.
async fn downloader(forms: &[String]) -> anyhow::Result<usize> {
    let fetcher = Fetcher::new(&Config { timeout: Duration::from_secs(3), ..Config::default() })?;
    let mut refused = 0;
    for form in forms {
        refused += usize::from(fetcher.fetch(form).await.is_err());
    }
    Ok(refused)
}

/// Sends all forms to `pm serve` with a worker; returns how many the API and the worker refused.
async fn whole_program(forms: &[String]) -> anyhow::Result<(usize, usize)> {
    let (_server, api) = serve().await?;
    let mut at_once = 0;
    let mut products = Vec::new();
    for form in forms {
        let body = json!({"user_id": "u", "product_name": "n", "product_price": 1, "product_images": [form]});
        let answer = api.post("/products", &body).await?;
        match answer.status {
            201 => products.push(answer.id().context("a number")?),
            422 => at_once += 1,
            other => anyhow::bail!("{form} is answered {other}: {}", answer.body),
        }
    }
    let began = Instant::now();
    let mut by_worker = 0;
    for id in products {
        // Failures that are retried later have had their first attempt by then.
        let code = loop {
            let image = api.product(id).await?["images"][0].clone();
            if image["status"] == "failed" {
                break image["error"]["code"].clone();
            }
            let waits = image["status"] == "pending" && image["attempts"].as_i64().unwrap_or(0) > 0;
            anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "not tried within a minute: {image}");
            // A name that changes its answer may have led to a public address; the traps record the rest.
            if waits || image["status"] == "ready" {
                break Value::Null;
            }
            sleep(Duration::from_millis(20)).await;
        };
        by_worker += usize::from(code == "address_refused");
    }
    Ok((at_once, by_worker))
}

/// Checks that public addresses are fetched, also through redirects.
async fn public_images(trap: &Trap) -> anyhow::Result<(usize, usize)> {
    let (_server, api) = serve().await?;
    let urls = trap::public_urls();
    let mut ready = 0;
    for url in &urls {
        let id = api.create("public", std::slice::from_ref(url)).await?["id"].as_i64().context("a number")?;
        let began = Instant::now();
        while api.product(id).await?["status"] == "processing" && began.elapsed() < Duration::from_secs(20) {
            sleep(Duration::from_millis(20)).await;
        }
        let status = api.product(id).await?["status"].clone();
        if status != "ready" {
            eprintln!("{url} is {status}: {}", api.product(id).await?);
        }
        ready += usize::from(status == "ready");
    }
    anyhow::ensure!(trap.served() > 0, "the public images were not requested");
    Ok((urls.len(), ready))
}

async fn serve() -> anyhow::Result<(Process, Api)> {
    let program = std::env::var_os("CHAOS_PROGRAM").context("no program")?;
    let own = std::env::vars().filter(|(name, _)| name.starts_with("PM_") || name == "HOME");
    let spec = Spec { environment: own.collect(), ..Spec::new("serve", program, std::env::current_dir()?) };
    let server = spec.arguments(["serve", "--workers", "4"]).spawn()?;
    let api = Api::new(LISTEN.parse()?);
    api.up(Duration::from_secs(30)).await?;
    Ok((server, api))
}
