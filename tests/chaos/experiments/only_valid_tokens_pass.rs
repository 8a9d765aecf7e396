//! P22: exactly the valid tokens are accepted. The experiment's own issuer publishes keys; valid tokens, and tokens
//! with one defect each, request the list of products. Whatever arrives, the keys are fetched at most once a minute.
//! The full form replaces the key and stops the issuer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    api::Api,
    issuer::{AUDIENCE, Issuer, SigningKey, hmac_token, now, unsigned_token},
    measurements::counts,
    soundness::{self, Counts},
    stage::{Form, Stage},
};

/// Minimum interval between fetches of the keys.
const PAUSE: Duration = Duration::from_secs(60);
/// Longer than a request's head may be.
const TEN_MEGABYTES: usize = 10_000_000;

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let key = SigningKey::p256("first");
    let issuer = Issuer::start(&[&key]).await;
    stage.configure("PM_AUTH_ISSUER", issuer.url());
    stage.configure("PM_AUTH_AUDIENCE", AUDIENCE);
    let mut server = stage.serve(&["--no-worker"]).await?;
    let (api, begun) = (server.api(), Instant::now());

    let right = valid(&issuer, &key);
    let wrong = invalid(&issuer, &key);
    for round in 0..stage.size(2, 20) {
        for (what, token) in &right {
            let status = status(&api, token).await;
            anyhow::ensure!(status == Some(200), "a token with {what} is answered {status:?} in round {round}");
        }
        for (what, token, expected) in &wrong {
            let status = status(&api, token).await;
            anyhow::ensure!(status == Some(*expected), "a token with {what} is answered {status:?} in round {round}");
        }
    }
    let huge = status(&api, &"A".repeat(TEN_MEGABYTES)).await;
    anyhow::ensure!(huge.is_none_or(|status| status == 431), "a token of 10 MB is answered {huge:?}");
    let asked = issuer.fetches();
    let most = 1 + usize::try_from(begun.elapsed().as_secs() / PAUSE.as_secs())?;
    anyhow::ensure!(asked <= most, "the keys were fetched {asked} times in {:?}", begun.elapsed());
    let mut findings = counts(json!({"valid": right.len(), "invalid": wrong.len() + 1, "fetches_of_keys": asked}));
    if stage.form == Form::Full {
        findings.extend(replaced_and_unavailable(&api, &issuer, &key).await?);
    }
    findings.extend(soundness::check(stage).await?);
    server.process.kill().await;
    Ok(findings)
}

/// Replaces the key: it is accepted after the next fetch. Then the issuer stops, and tokens with the known key stay
/// valid while others keep arriving.
async fn replaced_and_unavailable(api: &Api, issuer: &Issuer, old: &SigningKey) -> anyhow::Result<Counts> {
    let new = SigningKey::ed25519("second");
    issuer.publish(&[&new]);
    let token = new.token(&issuer.claims("seller", "products:read"));
    let begun = Instant::now();
    while status(api, &token).await != Some(200) {
        anyhow::ensure!(begun.elapsed() < PAUSE * 3 / 2, "a new key was not accepted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let taken_up_after = begun.elapsed();
    let withdrawn = status(api, &old.token(&issuer.claims("late", "products:read"))).await;
    anyhow::ensure!(withdrawn == Some(401), "a token with a withdrawn key was answered {withdrawn:?}");

    issuer.set_down(true);
    let (before, begun) = (issuer.fetches(), Instant::now());
    let stranger = SigningKey::p256("stranger");
    while begun.elapsed() < PAUSE * 2 {
        let fresh = new.token(&issuer.claims(&format!("seller {}", fastrand::u32(..)), "products:read"));
        anyhow::ensure!(
            status(api, &fresh).await == Some(200),
            "a token with a known key was refused while its issuer was down"
        );
        let unknown = stranger.token(&issuer.claims("seller", "products:read"));
        anyhow::ensure!(
            status(api, &unknown).await == Some(401),
            "a token of an unknown key while the issuer was down"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = issuer.fetches() - before;
    anyhow::ensure!(asked <= 3, "the keys were fetched {asked} times in two minutes");
    Ok(counts(json!({"new_key_taken_up_after_s": taken_up_after.as_secs(), "fetches_while_unavailable": asked})))
}

/// Returns the status of a request with this token; `None` if the connection broke.
async fn status(api: &Api, token: &str) -> Option<u16> {
    let sent = api.client().get(api.url("/products")).bearer_auth(token).send().await;
    sent.ok().map(|answer| answer.status().as_u16())
}

fn valid(issuer: &Issuer, key: &SigningKey) -> Vec<(&'static str, String)> {
    let mut two_audiences = issuer.claims("seller", "products:read");
    two_audiences["aud"] = json!(["https://other.example", AUDIENCE]);
    let mut full_type = key.header();
    full_type["typ"] = json!("application/at+jwt");
    vec![
        ("nothing wrong", key.token(&issuer.claims("seller", "products:read"))),
        ("another scope beside", key.token(&issuer.claims("seller", "openid products:read"))),
        ("the scope of all", key.token(&issuer.claims("seller", "admin"))),
        ("two audiences", key.token(&two_audiences)),
        ("its type in full", key.token_with(&full_type, &issuer.claims("seller", "products:read"))),
    ]
}

fn invalid(issuer: &Issuer, key: &SigningKey) -> Vec<(&'static str, String, u16)> {
    let right = issuer.claims("seller", "products:read");
    let claim = |name: &str, value: Value| {
        let mut claims = right.clone();
        claims[name] = value;
        key.token(&claims)
    };
    let header = |name: &str, value: Value| {
        let mut header = key.header();
        header[name] = value;
        header
    };
    let stranger = SigningKey::p256("first");
    vec![
        ("an end in the past", claim("exp", json!(now() - 60)), 401),
        ("a begin in the future", claim("nbf", json!(now() + 120)), 401),
        ("another audience", claim("aud", json!("https://other.example")), 401),
        ("another issuer", claim("iss", json!("https://evil.example")), 401),
        ("no subject", claim("sub", json!("")), 401),
        ("no signature", unsigned_token(&header("alg", json!("none")), &right), 401),
        ("the public key as secret", hmac_token(key.public_bytes(), &header("alg", json!("HS256")), &right), 401),
        ("another type", key.token_with(&header("typ", json!("JWT")), &right), 401),
        ("an unknown key", key.token_with(&header("kid", json!("another")), &right), 401),
        ("a stranger's signature", stranger.token(&right), 401),
        ("a stranger's key in it", stranger.token_with(&header("jwk", stranger.jwk()), &right), 401),
        ("what is critical", key.token_with(&header("crit", json!(["b64"])), &right), 401),
        ("no dots", "abc".to_owned(), 401),
        ("9 KB", key.token(&right) + &"A".repeat(9_000), 401),
        ("another scope alone", key.token(&issuer.claims("seller", "products:write")), 403),
        ("no scope", key.token(&issuer.claims("seller", "")), 403),
    ]
}
