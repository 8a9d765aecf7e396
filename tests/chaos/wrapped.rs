//! Runs `pm serve` under another program that first sets limits or namespaces.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use serde_json::json;

use crate::{
    api::Api, engines::programs, measurements::counts, processes::Spec, program::Server, soundness::Counts,
    stage::Stage,
};

/// Returns the `unshare` command line for new namespaces, such as `--net`, as root or in a user namespace. Returns
/// `None`, with a message, where the machine does not allow it.
pub async fn unshare(stage: &Stage, kinds: &[&'static str]) -> anyhow::Result<Option<Vec<&'static str>>> {
    let mut words = kinds.to_vec();
    if !rustix::process::geteuid().is_root() {
        words.push("--map-root-user");
    }
    let probe = Spec { program: "unshare".into(), ..stage.spec("unshare") };
    let tried = probe.arguments(&words).arguments(["true"]).run(START_LIMIT).await?;
    if tried.status.success() {
        return Ok(Some(words));
    }
    eprintln!("skipped: unshare {kinds:?} fails on this machine: {}", String::from_utf8_lossy(&tried.stderr));
    Ok(None)
}

/// The counts of an experiment that could not run here.
pub fn skipped() -> Counts {
    counts(json!({"skipped": "unshare is not permitted here"}))
}

const START_LIMIT: Duration = Duration::from_secs(60);

/// Starts `pm serve` as the last arguments of `wrapper`, on its own port; waits until it answers.
pub async fn serve(stage: &Stage, name: &str, wrapper: &[&str], arguments: &[&str]) -> anyhow::Result<Server> {
    let address = SocketAddr::from(([127, 0, 0, 1], programs::spare_port()));
    let bare = stage.spec(name);
    let (program, words) = wrapper.split_first().context("a wrapper")?;
    let spec = Spec { program: (*program).into(), ..bare.clone() };
    let spec = spec.arguments(words).arguments([bare.program]);
    let spec = spec.arguments(["serve", "--listen", &address.to_string()]).arguments(arguments);
    let mut process = spec.spawn()?;
    let up = async { Api::new(address).up(START_LIMIT).await };
    tokio::select! {
        up = up => up.with_context(|| format!("see {}", process.log().display()))?,
        ended = process.ended(START_LIMIT) => anyhow::bail!("{name} ended at once ({ended:?}): {}", process.output()),
    }
    Ok(Server { process, address })
}
