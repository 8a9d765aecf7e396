//! All routes as one warp filter.

use std::sync::{Arc, atomic::AtomicBool};

use warp::{Filter, filters::BoxedFilter, reply::Response};

use crate::http::{
    Config, State, openapi, problem,
    request::extract::BodyLimits,
    resources::{
        events::{self, Feed},
        images, originals, presets, product_images, products, queue, resource_metadata, status, users, webhooks,
    },
};

/// Returns the routes of all resources. `stopping` is true once the server shuts down.
pub fn routes(state: &State, config: &Config, feed: &Feed, stopping: &Arc<AtomicBool>) -> BoxedFilter<(Response,)> {
    let limits = BodyLimits { max_bytes: config.max_body, timeout: config.body_timeout };
    let batch = BodyLimits { max_bytes: config.max_batch_body, ..limits };
    products::routes(state, limits, batch)
        .or(events::routes(state, feed))
        .unify()
        .or(product_images::routes(state, limits, config.max_upload))
        .unify()
        .or(images::routes(state))
        .unify()
        .or(users::routes(state, limits))
        .unify()
        .or(webhooks::routes(state, limits))
        .unify()
        .or(queue::routes(state))
        .unify()
        .or(originals::routes(state))
        .unify()
        .or(presets::routes(state))
        .unify()
        .or(openapi::routes(openapi::Deployment {
            is_authenticated: !config.authentication.is_off(),
            base: state.catalog.links().base(),
        }))
        .unify()
        .or(resource_metadata::routes(state, &config.authentication))
        .unify()
        .or(status::routes(state, stopping))
        .unify()
        .recover(problem::from_rejection)
        .unify()
        .boxed()
}
