//! Reading products: from the cache without touching the body, else by one database read for everybody who asks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

use crate::{
    api::ProductBody,
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
    /// A strong entity tag with its quotes, ASCII, made from the JSON.
    pub etag: Bytes,
}

/// Where a body came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// From the cache.
    Hit,
    /// From the database.
    Miss,
}

impl Body {
    /// What is cached of a product: its tag and then its JSON.
    pub(crate) fn of(product: &Product, catalog: &Catalog) -> Result<Bytes, Error> {
        let json = serde_json::to_vec(&ProductBody::new(product, catalog.links())).map_err(Error::internal)?;
        let mut stored = BytesMut::with_capacity(TAG_BYTES + json.len());
        stored.extend_from_slice(&product_tag(&json)?);
        stored.extend_from_slice(&json);
        Ok(stored.freeze())
    }

    /// The body with this JSON, which is a product's.
    pub(super) fn of_json(json: Bytes) -> Result<Self, Error> {
        let etag = product_tag(&json)?;
        Ok(Self { json, etag })
    }

    /// The body of a product that is at hand.
    pub(in crate::catalog) fn new(product: &Product, catalog: &Catalog) -> Result<Self, Error> {
        let mut json = Self::of(product, catalog)?;
        let etag = json.split_to(TAG_BYTES);
        Ok(Self { json, etag })
    }

    /// Checks the conditions of a change of the product `id`, whose body this is.
    ///
    /// # Errors
    /// [`Error::Precondition`] if one of them does not hold.
    pub fn check(&self, condition: &Precondition, id: ProductId) -> Result<(), Error> {
        condition.check(&format!("product {id}"), &self.etag, &self.json)
    }

    /// The JSON of what is stored; `None` if it is too short to be ours.
    pub(crate) fn json_of(stored: Bytes) -> Option<Bytes> {
        Self::stored(stored).map(|body| body.json)
    }

    /// Splits what is stored, the tag and then the JSON, without copying; `None` if it is too short to be ours.
    fn stored(mut bytes: Bytes) -> Option<Self> {
        (bytes.len() > TAG_BYTES).then(|| {
            let etag = bytes.split_to(TAG_BYTES);
            Self { json: bytes, etag }
        })
    }
}

type Read = Shared<BoxFuture<'static, Result<(Option<Body>, Freshness), Error>>>;

/// Reads of cold products that are under way. At most one runs for a product at a time; whoever comes while it runs waits
/// for the next one, which they all share: it begins after they came, so it sees every write that was answered before.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Reads(Mutex<HashMap<ProductId, Slot>>);

#[derive(Debug, Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    next: Option<Read>,
}

impl Catalog {
    /// The body of a product if the cache has it at once; no other engine is asked.
    pub async fn hot_body(&self, id: ProductId) -> Option<Body> {
        match self.cache().get(id).await? {
            Entry::Value(bytes) => Body::stored(bytes),
            Entry::Absent => None,
        }
    }

    /// The body of a product, from the cache or from the database.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::Unavailable`] by the database.
    pub async fn product_body(&self, id: ProductId) -> Result<(Body, Freshness), Error> {
        let (body, freshness) = self.shared_read(id).await?;
        let body = body.ok_or_else(|| Error::not_found(format_args!("product {id}")))?;
        Ok((body, freshness))
    }

    /// Whether a read of the product runs. However many readers come meanwhile, one more read serves them all.
    pub fn is_being_read(&self, id: ProductId) -> bool {
        self.0.reads.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// The product as the database has it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::Unavailable`] by the database.
    pub async fn product(&self, id: ProductId) -> Result<Product, Error> {
        let catalog = self.clone();
        let find = async move { Ok(products::find(&catalog.database().snapshot().await?, id).await?) };
        let found = self.to_the_end(find).await?;
        found.ok_or_else(|| Error::not_found(format_args!("product {id}")))
    }

    /// A page of products.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn list(&self, query: &ProductQuery) -> Result<Page<Product>, Error> {
        let (catalog, query) = (self.clone(), query.clone());
        let list = async move { Ok(listing::list(&catalog.database().snapshot().await?, &query).await?) };
        let (items, next) = self.to_the_end(list).await?;
        Ok(Page { items, next_cursor: next.map(|cursor| cursor.encode()) })
    }

    fn shared_read(&self, id: ProductId) -> Read {
        let mut slots = self.0.reads.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(id).or_default();
        slot.next.get_or_insert_with(|| self.start_read(id, slot.turn.clone())).clone()
    }

    /// The read is a task of its own: it ends even if everybody who waits for it goes away.
    fn start_read(&self, id: ProductId, turn: Arc<tokio::sync::Mutex<()>>) -> Read {
        let catalog = self.clone();
        let read = tokio::spawn(async move {
            let turn = turn.lock_owned().await;
            catalog.close_to_newcomers(id);
            let reader = catalog.clone();
            let outcome = catalog.to_the_end(async move { reader.read_through(id).await }).await;
            drop(turn);
            catalog.forget_if_idle(id);
            outcome
        });
        async move { read.await.map_err(Error::internal)? }.boxed().shared()
    }

    fn close_to_newcomers(&self, id: ProductId) {
        let mut slots = self.0.reads.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(&id) {
            slot.next = None;
        }
    }

    fn forget_if_idle(&self, id: ProductId) {
        let mut slots = self.0.reads.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let stored = Body::of(&product, self)?;
        self.cache().fill(fill, id, Entry::Value(stored.clone())).await;
        Ok((Body::stored(stored), Freshness::Miss))
    }
}
