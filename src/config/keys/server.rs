//! Settings of the HTTP server: addresses, keys, authentication, TLS and limits.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key::new("listen", &["PM_LISTEN"], "127.0.0.1:8080")
        .doc("Address and port to listen on; port 0 selects a free port.")
        .allowed("an address and a port, such as 127.0.0.1:8080")
        .flag("--listen", Some("serve")),
    Key::new("public_url", &["PM_PUBLIC_URL"], "")
        .doc("Base URL of all links, such as `https://shop.example`. Without it, links are paths.")
        .allowed("an http or https URL without a query, such as https://shop.example"),
    Key::new("url_key", &["PM_URL_KEY"], "")
        .doc(
            "Keys that sign variant URLs, each of at least 32 characters, separated by commas. The first key signs, \
            all verify. On SQLite the default is a generated key in the data directory. On PostgreSQL there are no \
            variants without a key.",
        )
        .allowed("one or more keys of at least 32 characters, separated by commas")
        .secret(),
    Key::new("secret_key", &["PM_SECRET_KEY"], "")
        .doc(
            "Keys that encrypt webhook secrets in the database, each of at least 32 characters, separated by commas. \
            The first key encrypts, all decrypt. On SQLite the default is a generated key in the data directory. On \
            PostgreSQL no webhook can be created or restored without a key. All processes need the same keys.",
        )
        .allowed("one or more keys of at least 32 characters, separated by commas")
        .secret(),
    Key::new("backup_passphrase", &["PM_BACKUP_PASSPHRASE"], "")
        .doc(
            "Passphrase that encrypts the secrets in a backup. `pm backup` and `pm restore` need it, or \
            `--without-secrets`; `--passphrase-file` names a file with it. Keep a copy outside this machine.",
        )
        .allowed("a passphrase; `pm backup` requires at least 12 characters")
        .secret(),
    Key::new("placeholder", &["PM_PLACEHOLDER"], "none")
        .doc("Response for a rendition that is not ready: `none` (503), or `thumbhash` (a tiny PNG, if known).")
        .allowed("none or thumbhash"),
    Key::new("auth", &["PM_AUTH"], "")
        .doc("`off`: permit listening beyond this machine without authentication; `keys`: require API keys.")
        .allowed("off, keys, or nothing"),
    Key::new("auth_issuer", &["PM_AUTH_ISSUER"], "")
        .doc("Issuer of accepted access tokens (RFC 9068), in addition to API keys. pm discovers the issuer's keys.")
        .allowed("an https URL, or an http URL of this machine"),
    Key::new("auth_audience", &["PM_AUTH_AUDIENCE"], "")
        .doc("Required audience (`aud`) of access tokens.")
        .allowed("the required `aud` of tokens, such as https://shop.example"),
    Key::new("auth_token_type", &["PM_AUTH_TOKEN_TYPE"], "at+jwt")
        .doc(
            "Required `typ` of tokens: `at+jwt` (the standard), or `any` for issuers that do not set it. With `any`, \
            use an audience that no other kind of token has.",
        )
        .allowed("at+jwt or any"),
    Key::new("auth_client_id", &["PM_AUTH_CLIENT_ID"], "")
        .doc(
            "Clients whose tokens are accepted (`client_id`, `azp`, `appid` or `cid`); default: all. It can replace \
            the audience if tokens have none.",
        )
        .allowed("client ids at the issuer, separated by commas"),
    Key::new("auth_scope_claim", &["PM_AUTH_SCOPE_CLAIM"], "scope,scp")
        .doc("Claims that contain scopes. Dots select nested objects: `realm_access.roles`.")
        .allowed("names of claims, such as permissions, separated by commas"),
    Key::new("auth_scope_prefix", &["PM_AUTH_SCOPE_PREFIX"], "")
        .doc("Prefix of scopes in tokens; scopes without it are ignored.")
        .allowed("a prefix of scopes, such as https://shop.example/"),
    Key::new("auth_default_scopes", &["PM_AUTH_DEFAULT_SCOPES"], "")
        .doc("Scopes of tokens that have none of the scope claims.")
        .allowed("products:read, products:write and admin, separated by commas"),
    Key::new("auth_user_claim", &["PM_AUTH_USER_CLAIM"], "sub")
        .doc("The claim with the user's id. An email address must be verified.")
        .allowed("the name of a claim, such as email"),
    Key::new("public_read", &["PM_PUBLIC_READ"], "[]")
        .doc(
            "Resources that clients may read without a token: `products` (products, lists and search) and `images` \
            (images by preset). Renditions by key (`/images/…`) and signed URLs (`/resize/…`) never need a token.",
        )
        .allowed("products, images, or both, separated by commas"),
    Key::new("tls_cert", &["PM_TLS_CERT"], "")
        .doc("Certificate chain in PEM. The server uses TLS, and reloads changed files within seconds.")
        .allowed("a file with certificates in PEM")
        .flag("--tls-cert", Some("serve")),
    Key::new("tls_key", &["PM_TLS_KEY"], "")
        .doc("Private key of the certificate in PEM.")
        .allowed("a file with the certificate's key in PEM")
        .flag("--tls-key", Some("serve")),
    Key::new("hsts", &["PM_HSTS"], "")
        .doc("`max-age` of Strict-Transport-Security, such as `365d`.")
        .allowed("a time, such as 365d")
        .measure(),
    Key::new("plain_http", &["PM_PLAIN_HTTP"], "")
        .doc("`allow`: permit unencrypted credentials when listening beyond this machine.")
        .allowed("allow, or nothing"),
    Key::new("trusted_proxies", &["PM_TRUSTED_PROXIES"], "[]")
        .doc("Trusted proxies, which report the client's address, such as [\"10.1.0.0/16\"].")
        .allowed("networks and addresses, such as 10.1.0.0/16, separated by commas"),
    Key::new("forwarded_header", &["PM_FORWARDED_HEADER"], "x-forwarded-for")
        .doc(
            "The header of trusted proxies: `x-forwarded-for` (with `X-Forwarded-Proto`) or `forwarded` (RFC 7239). \
            The other one is ignored, because a client may have sent it.",
        )
        .allowed("x-forwarded-for or forwarded"),
    Key::new("keepalive", &["PM_KEEPALIVE"], "75s")
        .doc("Idle time limit of a connection; must be longer than that of a proxy in front.")
        .allowed("a time from 1s to 1h, such as 75s")
        .measure(),
    Key::new("rate_limit", &["PM_RATE_LIMIT"], "")
        .doc("Rate limit per client: `10/s`, `600/m,burst=20`. A client is a user, a key or an address.")
        .allowed("a number of requests per s, m or h and a burst, such as 10/s,burst=20"),
    Key::new("cors_origins", &["PM_CORS_ORIGINS"], "[]")
        .doc("Origins that CORS permits, such as [\"https://shop.example\"], or \"*\".")
        .allowed("origins such as https://shop.example, separated by commas, or *"),
    Key::new("allowed_hosts", &["PM_ALLOWED_HOSTS"], "[]")
        .doc(
            "Accepted hosts, in addition to this machine's names and the host of `public_url`, such as \
            [\"shop.example\"], or \"*\". Other hosts are refused as a protection against DNS rebinding.",
        )
        .allowed("host names and addresses, separated by commas, or *"),
    Key::new("auto_users", &["PM_AUTO_USERS"], "true")
        .doc("Create an unknown user together with its first product.")
        .allowed("true or false"),
];
