//! `pm serve` behind another program that changes its surroundings first: the limits of a shell, namespaces of its own.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;

use crate::{api::Api, engines::programs, processes::Spec, program::Server, stage::Stage};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Starts `pm serve` as the last words of `wrapper`'s command line, at a port of its own; waits until it answers.
///
/// # Errors
/// If it does not; its log is in the stage's directory under `name`.
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
