//! Refers from the schema of each page to the schema of its items: utoipa repeats the argument of a generic type.

use utoipa::openapi::{Components, Ref, RefOr, Schema, schema::ArrayItems};

/// Prefix of the names of page schemas; the name of the items' schema follows.
const PREFIX: &str = "Page_";

/// Replaces the inline items of pages by references.
pub(super) fn refer_to_items(components: &mut Components) {
    let schemas = &mut components.schemas;
    let pages = schemas.keys().filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned));
    for item in pages.collect::<Vec<_>>() {
        let Some(RefOr::T(Schema::Object(page))) = schemas.get_mut(&format!("{PREFIX}{item}")) else { continue };
        let Some(RefOr::T(Schema::Array(list))) = page.properties.get_mut("items") else { continue };
        let reference = RefOr::Ref(Ref::from_schema_name(item.as_str()));
        let inline = std::mem::replace(&mut list.items, ArrayItems::RefOrSchema(Box::new(reference)));
        if let ArrayItems::RefOrSchema(inline) = inline {
            schemas.entry(item).or_insert(*inline);
        }
    }
}
