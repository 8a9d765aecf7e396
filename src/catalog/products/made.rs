//! What requests with an idempotency key have stored: enough to repeat their responses, and to continue a batch that
//! was stored in part.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::outcome::{NotStored, Stored, pending, product_of, status_of, unknown_user};
use crate::{
    clock::Timestamp,
    domain::{ImageId, ImageSource, NewProduct, Product, ProductId},
};

/// The ids of the products and images of a request, in its order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Made {
    /// Creation time of the first chunk in microseconds since 1970.
    at: i64,
    /// The id of each product that was handled; `None` if its user is unknown.
    products: Vec<Option<ProductId>>,
    /// The image ids as ranges: first id and count.
    images: Vec<(i64, i64)>,
    /// The later chunks of a batch: index of the first product, and creation time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    later: Vec<(usize, i64)>,
}

impl Made {
    /// Records the first or only chunk of a request.
    pub(super) fn of(stored: &[Stored], now: Timestamp) -> Self {
        let mut made = Self { at: now.0, products: Vec::new(), images: Vec::new(), later: Vec::new() };
        made.add(stored);
        made
    }

    /// Adds a later chunk of a batch.
    pub(super) fn with_chunk(mut self, stored: &[Stored], now: Timestamp) -> Self {
        self.later.push((self.products.len(), now.0));
        self.add(stored);
        self
    }

    fn add(&mut self, stored: &[Stored]) {
        for image in stored.iter().flatten().flat_map(|product| &product.images) {
            match self.images.last_mut() {
                Some((first, count)) if *first + *count == image.id.0 => *count += 1,
                _ => self.images.push((image.id.0, 1)),
            }
        }
        self.products.extend(stored.iter().map(|outcome| outcome.as_ref().ok().map(|product| product.id)));
    }

    /// Returns the number of products that were handled.
    pub(super) fn count(&self) -> usize {
        self.products.len()
    }

    /// Returns the ids of the stored products.
    pub(super) fn ids(&self) -> Vec<ProductId> {
        self.products.iter().flatten().copied().collect()
    }

    /// Rebuilds stored products from `news` and their ids. `there` has the ids of those that still exist.
    ///
    /// `handled` has the number of the request's products before `news`, and of the images of these.
    pub(super) fn rebuild(
        &self,
        news: Vec<NewProduct>,
        handled: (usize, usize),
        there: &BTreeSet<ProductId>,
    ) -> Vec<Stored> {
        let mut image_ids = self.images.iter().flat_map(|(first, count)| *first..first + count).skip(handled.1);
        let ids = self.products.iter().copied().enumerate().skip(handled.0);
        let rebuilt = news.into_iter().zip(ids).map(|(new, (index, id))| {
            let id = id.ok_or_else(|| unknown_user(&new.user_id))?;
            let images: Vec<_> =
                image_ids.by_ref().take(new.product_images.len()).zip(new.product_images.clone()).collect();
            if !there.contains(&id) {
                return Err(NotStored::Gone(id));
            }
            Ok(self.product(new, (index, id), images))
        });
        rebuilt.collect()
    }

    fn product(&self, new: NewProduct, (index, id): (usize, ProductId), images: Vec<(i64, ImageSource)>) -> Product {
        let at = self.later.iter().rev().find(|(first, _)| *first <= index).map_or(self.at, |(_, at)| *at);
        let (status, at) = (status_of(&new), Timestamp(at));
        let mut product = product_of(new, id, status, at);
        product.images = (0..)
            .zip(images)
            .map(|(position, (image, source))| pending(ImageId(image), position, source, at))
            .collect();
        product
    }
}
