//! The size of a batch's chunks: as large as the database stores in a short time.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crate::domain::NewProduct;

/// Maximum cost of a chunk, about in bytes written.
const MAX_COST: usize = 256 << 10;
/// Minimum of the maximum: smaller chunks cost more for their transactions than for their products.
const MIN_COST: usize = 16 << 10;
/// Cost of a product without texts and images.
const PRODUCT_COST: usize = 1 << 10;
/// Cost of an image with its job.
const IMAGE_COST: usize = 1 << 10;
/// Time in which a chunk should be stored: other writers wait for it.
const TARGET: Duration = Duration::from_millis(40);

/// The maximum cost of the next chunk. It follows the speed of the database, which all batches share.
#[derive(Debug)]
pub(in crate::catalog) struct ChunkCost(AtomicUsize);

impl Default for ChunkCost {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_COST))
    }
}

impl ChunkCost {
    /// Returns the number of products in the next chunk; at least one, if there is one.
    pub(super) fn length(&self, left: &VecDeque<NewProduct>) -> usize {
        let (max, mut cost) = (self.0.load(Ordering::Relaxed), 0);
        let fits = left.iter().take_while(|new| {
            let texts = new.product_name.len() + new.product_description.len();
            cost += PRODUCT_COST + texts + IMAGE_COST * new.product_images.len();
            cost <= max
        });
        fits.count().max(1).min(left.len())
    }

    /// Records that a chunk took this time: the next one is half as large after a slow one, twice after a fast one.
    pub(super) fn record(&self, took: Duration) {
        let cost = self.0.load(Ordering::Relaxed);
        let next = if took > TARGET {
            (cost / 2).max(MIN_COST)
        } else if took < TARGET / 3 {
            (cost * 2).min(MAX_COST)
        } else {
            return;
        };
        self.0.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AddressPolicy;

    fn product(description: usize, images: usize) -> NewProduct {
        let urls: Vec<_> = (0..images).map(|number| format!("https://example.com/{number}.jpg")).collect();
        let json = serde_json::json!({
            "user_id": "u", "product_name": "a", "product_price": 1,
            "product_description": "x".repeat(description), "product_images": urls,
        });
        let read = NewProduct::from_json_of(json.to_string().as_bytes(), &AddressPolicy::default(), None);
        read.expect("JSON").expect("a product")
    }

    fn length(cost: &ChunkCost, product: NewProduct, count: usize) -> usize {
        cost.length(&std::iter::repeat_n(product, count).collect())
    }

    #[test]
    fn a_chunk_has_at_most_its_cost_and_at_least_one_product() {
        let cost = ChunkCost::default();
        assert_eq!(length(&cost, product(0, 0), 0), 0);
        assert_eq!(length(&cost, product(0, 0), 1_000), 255);
        assert_eq!(length(&cost, product(0, 0), 20), 20);
        assert_eq!(length(&cost, product(8_000, 0), 1_000), 29);
        assert_eq!(length(&cost, product(0, 31), 1_000), 7);
    }

    #[test]
    fn chunks_shrink_while_they_are_slow_and_grow_while_they_are_fast() {
        let cost = ChunkCost::default();
        let after = |millis, times| {
            (0..times).for_each(|_| cost.record(Duration::from_millis(millis)));
            length(&cost, product(0, 0), 1_000)
        };
        assert_eq!(after(100, 1), 127);
        assert_eq!(after(30, 5), 127, "neither slow nor fast");
        assert_eq!(after(100, 9), 15, "never below the minimum");
        assert_eq!(after(10, 1), 31);
        assert_eq!(after(10, 9), 255, "never above the maximum");
    }
}
