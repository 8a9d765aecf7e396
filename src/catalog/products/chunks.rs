//! The size of a batch's chunks: as large as the database stores in a short time.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;

use crate::domain::NewProduct;

/// Maximum cost of a chunk, about in bytes written.
const MAX_COST: usize = 256 << 10;
/// Minimum of the maximum: smaller chunks cost more for their transactions than for their products.
const MIN_COST: usize = 32 << 10;
/// Cost of a product without texts and images.
const PRODUCT_COST: usize = 1 << 10;
/// Cost of an image with its job.
const IMAGE_COST: usize = 1 << 10;
/// Time in which a chunk should be stored: other writers wait for it.
const TARGET: Duration = Duration::from_millis(40);

/// The maximum cost of the next chunk. It follows the speed of the database, which all batches share.
#[derive(Debug)]
pub(in crate::catalog) struct ChunkCost(Mutex<State>);

#[derive(Debug)]
struct State {
    max: usize,
    /// The maximum and the time of the last chunk, if it was slow.
    slow: Option<(usize, Duration)>,
}

impl Default for ChunkCost {
    fn default() -> Self {
        Self(Mutex::new(State { max: MAX_COST, slow: None }))
    }
}

impl ChunkCost {
    /// Returns the number of products in the next chunk; at least one, if there is one.
    pub(super) fn length(&self, left: &VecDeque<NewProduct>) -> usize {
        let (max, mut cost) = (self.0.lock().max, 0);
        let fits = left.iter().take_while(|new| {
            let texts = new.product_name.len() + new.product_description.len();
            cost += PRODUCT_COST + texts + IMAGE_COST * new.product_images.len();
            cost <= max
        });
        fits.count().max(1).min(left.len())
    }

    /// Records that a chunk took this time: the next one is half as large after a slow one, twice after a fast one.
    ///
    /// A slow disk takes as long for a small transaction as for a large one. If a smaller chunk was not faster, the
    /// next one is larger again.
    pub(super) fn record(&self, took: Duration) {
        let mut state = self.0.lock();
        let max = state.max;
        let helped = state.slow.is_none_or(|(before, time)| max >= before || took < time * 3 / 4);
        state.slow = (took > TARGET).then_some((max, took));
        state.max = if took > TARGET && helped {
            (max / 2).max(MIN_COST)
        } else if took > TARGET || took < TARGET / 3 {
            (max * 2).min(MAX_COST)
        } else {
            max
        };
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
        assert_eq!(after(200, 1), 127);
        assert_eq!(after(100, 1), 63);
        assert_eq!(after(30, 5), 63, "neither slow nor fast");
        assert_eq!(after(90, 1), 31);
        assert_eq!(after(50, 1), 31, "the minimum");
        assert_eq!(after(10, 1), 63);
        assert_eq!(after(10, 9), 255, "the maximum");
    }

    #[test]
    fn chunks_stay_large_if_smaller_ones_are_not_faster() {
        let cost = ChunkCost::default();
        for _ in 0..50 {
            cost.record(Duration::from_millis(300));
            assert!(length(&cost, product(0, 0), 1_000) >= 127);
        }
    }
}
