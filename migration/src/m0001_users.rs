//! Users; they own products.

crate::step! {
    "m0001_users",
    up: [
        "CREATE TABLE users (
            id {text} PRIMARY KEY,
            name TEXT,
            email TEXT,
            created_at {int} NOT NULL
        )",
    ],
    down: ["DROP TABLE users"]
}
