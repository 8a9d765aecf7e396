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

    /// Returns the number of images that were stored with `news`, which begin after `handled` products.
    pub(super) fn count_images(&self, news: &[NewProduct], handled: usize) -> usize {
        let stored = news.iter().zip(self.products.iter().skip(handled)).filter(|(_, id)| id.is_some());
        stored.map(|(new, _)| new.product_images.len()).sum()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AddressPolicy;

    fn product(images: usize) -> NewProduct {
        let urls: Vec<_> = (0..images).map(|number| format!("https://example.com/{number}.jpg")).collect();
        let json = serde_json::json!({"user_id": "u", "product_name": "a", "product_price": 1, "product_images": urls});
        let read = NewProduct::from_json_of(json.to_string().as_bytes(), &AddressPolicy::default(), None);
        read.expect("JSON").expect("a product")
    }

    #[test]
    fn images_of_a_later_chunk_keep_their_ids_if_an_earlier_product_is_gone() {
        let ids = [Some(1), Some(2), None, Some(3)].map(|id| id.map(ProductId)).to_vec();
        let made = Made { at: 0, products: ids, images: vec![(10, 4), (24, 3)], later: vec![(2, 5)] };
        let (first, second) = (vec![product(2), product(3)], vec![product(1), product(2)]);
        let there = BTreeSet::from([ProductId(2), ProductId(3)]);
        let image_ids = |stored: &Stored| -> Vec<i64> {
            stored.as_ref().expect("stored").images.iter().map(|image| image.id.0).collect()
        };

        let handled = made.count_images(&first, 0);
        let rebuilt = made.rebuild(first, (0, 0), &there);
        assert!(matches!(rebuilt[0], Err(NotStored::Gone(ProductId(1)))));
        assert_eq!(image_ids(&rebuilt[1]), [12, 13, 24]);
        assert_eq!(made.count_images(&second, 2), 2, "the product of an unknown user has no images");
        let rebuilt = made.rebuild(second, (2, handled), &there);
        assert!(matches!(rebuilt[0], Err(NotStored::Invalid(_))));
        assert_eq!(image_ids(&rebuilt[1]), [25, 26]);
    }
}
