//! Products, with an index for every sort order, of all products and of one user's products.

crate::step! {
    "m0002_products",
    up: [
        "CREATE TABLE products (
            id {id},
            user_id {text} NOT NULL REFERENCES users (id),
            product_name {text} NOT NULL,
            product_name_folded {text} NOT NULL,
            product_description TEXT NOT NULL,
            product_price {int} NOT NULL CHECK (product_price >= 0),
            status TEXT NOT NULL CHECK (status IN ('processing', 'ready', 'failed')),
            version {int} NOT NULL,
            created_at {int} NOT NULL,
            updated_at {int} NOT NULL
        )",
        "CREATE INDEX products_by_price ON products (product_price, id)",
        "CREATE INDEX products_by_name ON products (product_name, id)",
        "CREATE INDEX products_by_creation ON products (created_at, id)",
        "CREATE INDEX products_by_status ON products (status, id)",
        "CREATE INDEX products_of_user ON products (user_id, id)",
        "CREATE INDEX products_of_user_by_price ON products (user_id, product_price, id)",
        "CREATE INDEX products_of_user_by_name ON products (user_id, product_name, id)",
        "CREATE INDEX products_of_user_by_creation ON products (user_id, created_at, id)",
    ],
    down: ["DROP TABLE products"]
}
