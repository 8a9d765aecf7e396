//! API keys, which scripts send instead of an access token.

crate::step! {
    "m0014_api_keys",
    up: [
        "CREATE TABLE api_keys (
            id {id},
            name {text},
            prefix {text} NOT NULL,
            hash {text} NOT NULL UNIQUE,
            user_id {text} NOT NULL REFERENCES users (id),
            scopes {text} NOT NULL,
            created_at {int} NOT NULL,
            last_used_at {int},
            expires_at {int},
            revoked_at {int}
        )",
    ],
    down: ["DROP TABLE api_keys"]
}
