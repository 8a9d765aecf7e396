//! `pm product`: add, list and get; dispatches update and delete.

use tokio_util::sync::CancellationToken;

use super::{
    args::{self, Format, ProductAdd, ProductList},
    failure::{Exit, Failure},
    image_source::{is_address, store},
    output::Console,
    product_delete,
    product_row::ProductRow,
    product_update,
    signals::unless_stopped,
    user::flag,
    wait::{self, Wait},
};
use crate::{
    app::App,
    catalog::{self, Catalog},
    domain::{ImageSource, NewProduct, Product, ProductDraft, ProductId, ProductQuery},
};

/// Runs the command.
pub(super) async fn run(
    command: args::Product,
    app: &App,
    console: &mut Console,
    stop: &CancellationToken,
) -> Result<Exit, Failure> {
    const UPDATED: &str = "the product may have been changed; check with `pm product get`";
    const AGAIN: &str = "nothing was changed; run the same command again to restart it";
    match command {
        args::Product::Add(new) => return add(new, app, console, stop).await,
        args::Product::List(wanted) => unless_stopped(stop, AGAIN, list(&wanted, &app.catalog, console)).await?,
        args::Product::Get { id } => {
            let product = app.catalog.product(ProductId(id)).await?;
            show(&product, &app.catalog, console)?;
        }
        args::Product::Update(change) => {
            let limit = app.settings.fetching.max_bytes;
            let updated = Box::pin(product_update::run(change, &app.catalog, limit));
            let product = unless_stopped(stop, UPDATED, updated).await?;
            show(&product, &app.catalog, console)?;
        }
        args::Product::Delete { ids, yes } => {
            return product_delete::run(&ids, yes, &app.catalog, console, stop).await;
        }
    }
    Ok(Exit::Done)
}

async fn add(new: ProductAdd, app: &App, console: &mut Console, stop: &CancellationToken) -> Result<Exit, Failure> {
    const STORED: &str = "the product may have been added; check with `pm product list --sort -id`";
    let catalog = &app.catalog;
    let waits = new.wait;
    let limit = app.settings.fetching.max_bytes;
    let product = unless_stopped(stop, STORED, create(new, catalog, limit)).await?;
    if !waits {
        show(&product, catalog, console)?;
        let idle = product.images.iter().any(|image| !image.status.is_final());
        if idle && console.format() == Format::Table {
            console.say("a running `pm serve` or `pm worker` processes its images");
        }
        return Ok(Exit::Done);
    }
    let images: Vec<_> = product.images.iter().map(|image| image.id).collect();
    let hint = format!(
        "product {0} is stored; a running `pm serve` or `pm worker` processes its images; `pm product get {0}` shows \
         their status",
        product.id
    );
    let outcome = wait::until_final(app, &images, Wait { quiet: console.is_quiet(), hint: &hint }, stop).await?;
    show(&catalog.product(product.id).await?, catalog, console)?;
    Ok(outcome.exit())
}

async fn create(new: ProductAdd, catalog: &Catalog, limit: u64) -> Result<Product, Failure> {
    let images = new.images;
    let draft = ProductDraft {
        user_id: Some(new.user_id),
        product_name: Some(new.name),
        product_description: new.description,
        // A file gets its key when it is stored, which happens after all other fields are validated.
        product_images: images
            .iter()
            .map(|image| match is_address(image) {
                true => ImageSource::Url(image.clone()),
                false => ImageSource::Stored(String::new()),
            })
            .collect(),
        product_price: Some(new.price),
    };
    let spell = |field: &str| spell(field, &images);
    let mut product =
        NewProduct::parse(draft, catalog.policy()).map_err(|invalid| Failure::invalid(&invalid, spell))?;
    for (place, image) in images.iter().enumerate().filter(|(_, image)| !is_address(image)) {
        product.product_images[place] = store("--image", image, catalog, limit).await?;
    }
    catalog.create(product, None).await.map_err(|error| match error {
        catalog::Error::Invalid(invalid) => Failure::invalid(&invalid, spell),
        error => error.into(),
    })
}

/// Maps a field to its flag: `product_name` to `--name`, `product_images[1]` to `--image` with its value.
fn spell(field: &str, images: &[String]) -> String {
    let place = field.strip_prefix("product_images[").and_then(|rest| rest.strip_suffix(']')?.parse::<usize>().ok());
    match (place.and_then(|place| images.get(place)), field) {
        (Some(image), _) => format!("--image {image}:"),
        (None, "product_images") => "--image".into(),
        (None, field) => flag(field.strip_prefix("product_").unwrap_or(field)),
    }
}

async fn list(wanted: &ProductList, catalog: &Catalog, console: &mut Console) -> Result<(), Failure> {
    let mut cursor = wanted.paging.cursor.clone();
    let mut list = console.list();
    loop {
        let query = query(wanted, cursor.as_deref())?;
        let page = catalog.list(&query).await?;
        let rows: Vec<_> = page.items.iter().map(|product| ProductRow::new(product, catalog.links())).collect();
        list.page(&rows)?;
        cursor = page.next_cursor;
        if cursor.is_none() || !wanted.paging.all {
            return Ok(list.finish(cursor.as_deref())?);
        }
    }
}

fn query(wanted: &ProductList, cursor: Option<&str>) -> Result<ProductQuery, Failure> {
    let pairs = [
        ("user_id", wanted.user_id.as_deref()),
        ("min_price", wanted.min_price.as_deref()),
        ("max_price", wanted.max_price.as_deref()),
        ("name", wanted.name.as_deref()),
        ("q", wanted.query.as_deref()),
        ("status", wanted.status.as_deref()),
        ("sort", wanted.sort.as_deref()),
        ("limit", wanted.paging.page_size()),
        ("cursor", cursor),
    ];
    let given = pairs.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    let spell = |field: &str| if field == "q" { flag("query") } else { flag(field) };
    ProductQuery::parse(given).map_err(|invalid| Failure::invalid(&invalid, spell))
}

fn show(product: &Product, catalog: &Catalog, console: &mut Console) -> Result<(), Failure> {
    let row = ProductRow::new(product, catalog.links());
    console.single(&row)?;
    if console.format() == Format::Table && !console.is_quiet() && !product.images.is_empty() {
        let (columns, rows) = row.images();
        console.line("")?;
        console.table(columns, rows)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_reported_as_flags() {
        let images = ["a.jpg".to_owned(), "http://10.0.0.1/b".to_owned()];
        assert_eq!(spell("product_name", &images), "--name");
        assert_eq!(spell("user_id", &images), "--user-id");
        assert_eq!(spell("product_images", &images), "--image");
        assert_eq!(spell("product_images[1]", &images), "--image http://10.0.0.1/b:");
        assert_eq!(spell("product_images[7]", &images), "--images[7]");
    }
}
