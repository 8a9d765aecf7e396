//! Reads products from the cache, or by one shared database read for all waiting readers.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

use crate::{
    api::{Links, ProductBody},
    cache::{Entry, Lookup},
    catalog::{
        Catalog, Error, Precondition,
        tags::{TAG_BYTES, product_tag},
    },
    db::products::{self, listing},
    domain::{Page, Product, ProductId, ProductQuery},
};

/// A product's JSON as it is cached and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The JSON.
    pub json: Bytes,
    /// The entity tag with its quotes, ASCII.
    pub etag: Bytes,
}

/// The origin of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// From the cache.
    Hit,
    /// From the database.
    Miss,
}

impl Body {
    /// Returns the cache entry of a product: its tag, then its JSON.
    pub(crate) fn of(product: &Product, links: &Links) -> Result<Bytes, Error> {
        let json = serde_json::to_vec(&ProductBody::new(product, links)).map_err(Error::internal)?;
        let mut stored = BytesMut::with_capacity(TAG_BYTES + json.len());
        stored.extend_from_slice(&product_tag(&json)?);
        stored.extend_from_slice(&json);
        Ok(stored.freeze())
    }

    /// Creates the body with this product JSON.
    pub(super) fn of_json(json: Bytes) -> Result<Self, Error> {
        let etag = product_tag(&json)?;
        Ok(Self { json, etag })
    }

    /// Creates the body of `product`.
    pub(in crate::catalog) fn new(product: &Product, catalog: &Catalog) -> Result<Self, Error> {
        let mut json = Self::of(product, catalog.links())?;
        let etag = json.split_to(TAG_BYTES);
        Ok(Self { json, etag })
    }

    /// Checks the preconditions of a change of product `id` against this body.
    ///
    /// # Errors
    /// [`Error::Precondition`] if one does not hold.
    pub fn check(&self, condition: &Precondition, id: ProductId) -> Result<(), Error> {
        condition.check(&format!("product {id}"), &self.etag, &self.json)
    }

    /// Splits a cache entry into tag and JSON without copying; `None` if it is too short.
    fn stored(mut bytes: Bytes) -> Option<Self> {
        (bytes.len() > TAG_BYTES).then(|| {
            let etag = bytes.split_to(TAG_BYTES);
            Self { json: bytes, etag }
        })
    }
}

type Read = Shared<BoxFuture<'static, Result<(Option<Body>, Freshness), Error>>>;

/// Database reads in progress, at most one per product.
///
/// Readers that arrive during a read share the next one. It begins after they arrived, so it sees every write that was
/// acknowledged before.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Reads(Mutex<HashMap<ProductId, Slot>>);

#[derive(Debug, Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    next: Option<Read>,
}

impl Catalog {
    /// Returns the body of a product from the cache only.
    pub async fn hot_body(&self, id: ProductId) -> Option<Body> {
        match self.cache().get(id).await? {
            Entry::Value(bytes) => Body::stored(bytes),
            Entry::Absent => None,
        }
    }

    /// Returns the body of a product from the cache or the database.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the product does not exist.
    pub async fn product_body(&self, id: ProductId) -> Result<(Body, Freshness), Error> {
        let (body, freshness) = self.shared_read(id).await?;
        let body = body.ok_or_else(|| Error::not_found(format_args!("product {id}")))?;
        Ok((body, freshness))
    }

    /// Whether a database read of the product is in progress.
    ///
    /// All readers that arrive during it share one more read.
    pub fn is_being_read(&self, id: ProductId) -> bool {
        self.0.reads.0.lock().contains_key(&id)
    }

    /// Returns a product from the database.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist.
    pub async fn product(&self, id: ProductId) -> Result<Product, Error> {
        let catalog = self.clone();
        let find = async move { Ok(products::find(&catalog.database().snapshot().await?, id).await?) };
        let found = self.to_the_end(find).await?;
        found.ok_or_else(|| Error::not_found(format_args!("product {id}")))
    }

    /// Returns a page of products.
    pub async fn list(&self, query: &ProductQuery) -> Result<Page<Product>, Error> {
        let (catalog, query) = (self.clone(), query.clone());
        let list = async move { Ok(listing::list(&catalog.database().snapshot().await?, &query).await?) };
        let (items, next) = self.to_the_end(list).await?;
        Ok(Page { items, next_cursor: next.map(|cursor| cursor.encode()) })
    }

    fn shared_read(&self, id: ProductId) -> Read {
        let mut slots = self.0.reads.0.lock();
        let slot = slots.entry(id).or_default();
        slot.next.get_or_insert_with(|| self.start_read(id, slot.turn.clone())).clone()
    }

    /// Starts a read in its own task, so that it ends even if all readers are dropped.
    fn start_read(&self, id: ProductId, turn: Arc<tokio::sync::Mutex<()>>) -> Read {
        let catalog = self.clone();
        let read = tokio::spawn(async move {
            let turn = turn.lock_owned().await;
            catalog.stop_sharing(id);
            let reader = catalog.clone();
            let outcome = catalog.to_the_end(async move { reader.read_through(id).await }).await;
            drop(turn);
            catalog.remove_if_idle(id);
            outcome
        });
        async move { read.await.map_err(Error::internal)? }.boxed().shared()
    }

    fn stop_sharing(&self, id: ProductId) {
        let mut slots = self.0.reads.0.lock();
        if let Some(slot) = slots.get_mut(&id) {
            slot.next = None;
        }
    }

    fn remove_if_idle(&self, id: ProductId) {
        let mut slots = self.0.reads.0.lock();
        if slots.get(&id).is_some_and(|slot| slot.next.is_none() && Arc::strong_count(&slot.turn) == 1) {
            slots.remove(&id);
        }
    }

    async fn read_through(&self, id: ProductId) -> Result<(Option<Body>, Freshness), Error> {
        let fill = match self.cache().lookup(id).await {
            Lookup::Hit(Entry::Absent) => return Ok((None, Freshness::Hit)),
            Lookup::Hit(Entry::Value(bytes)) => return Ok((Body::stored(bytes), Freshness::Hit)),
            Lookup::Miss(fill) => fill,
        };
        metrics::counter!("pm_product_reads_total").increment(1);
        let Some(product) = products::find(&self.database().snapshot().await?, id).await? else {
            self.cache().fill(fill, id, Entry::Absent).await;
            return Ok((None, Freshness::Miss));
        };
        let stored = Body::of(&product, self.links())?;
        self.cache().fill(fill, id, Entry::Value(stored.clone())).await;
        Ok((Body::stored(stored), Freshness::Miss))
    }
}
