//! Headers for browsers.

use crate::{
    api::wire,
    support::{Setup, app, on_both_setups},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_cors_origins_may_read_responses() {
    let settings = [("PM_CORS_ORIGINS", "https://shop.example")];
    app::run_with(Setup::Embedded, &settings, async |app| {
        let asked = [("Origin", "https://shop.example"), ("Access-Control-Request-Method", "POST")];
        let before = wire::send(app.address, "OPTIONS", "/products", &asked, b"").await;
        assert_eq!(before.status, 204);
        assert_eq!(before.header("access-control-allow-origin"), "https://shop.example");
        assert_eq!(before.header("access-control-allow-methods"), before.header("allow"));
        assert!(before.header("access-control-allow-headers").contains("Authorization"));
        let answer = wire::get_with(app, "/products/1", &asked[..1]).await;
        assert_eq!(answer.status, 404, "problems can be read as well");
        assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example");
        assert!(answer.header("access-control-expose-headers").contains("X-Request-Id"));
        let other = app.client.get(app.url("/products")).header("Origin", "https://evil.example").send().await.unwrap();
        assert_eq!(
            (other.status().as_u16(), other.headers().contains_key("access-control-allow-origin")),
            (200, false)
        );
        assert!(other.headers().get_all("vary").iter().any(|name| name == "Origin"), "{:?}", other.headers());
    })
    .await;
}

on_both_setups! {
    async fn responses_have_the_nosniff_header(app: &TestApp) {
        for path in ["/", "/products", "/products/1", "/nowhere", "/images/ab/cd.webp"] {
            let answer = wire::get_with(app, path, &[("Origin", "https://shop.example")]).await;
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert!(answer.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
            assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
            assert_eq!(answer.header("strict-transport-security"), "", "{path}");
            let shown_elsewhere = if path.starts_with("/images/") { "cross-origin" } else { "" };
            assert_eq!(answer.header("cross-origin-resource-policy"), shown_elsewhere, "{path}");
        }
    }
}
