//! What is answered to the creation of one product and of several: made in the transaction that stores them, so that an
//! idempotency key can keep it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{Links, ProductBody},
    catalog::{Answer, Error, NotStored, Stored, products::create::only},
    code::ErrorCode,
    domain::{FieldError, Invalid, NewProduct},
};

/// What became of several products.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult)]
pub struct BatchBody<'a> {
    /// A result for each product, in the order of the request.
    items: Vec<ItemBody<'a>>,
    /// How many were stored.
    created: usize,
    /// How many were not.
    failed: usize,
}

/// What became of one of them.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchItem)]
struct ItemBody<'a> {
    /// Its place in the request, from 0.
    index: usize,
    /// The status that a request of its own would have had: 201, 422, or 410 if the same request stored it before and it was
    /// deleted since.
    status: u16,
    /// The product, if it was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    product: Option<ProductBody<'a>>,
    /// Why it was not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<ItemErrorBody<'a>>,
}

/// Why a product was not stored.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchItemError)]
struct ItemErrorBody<'a> {
    /// One of the codes of errors.
    code: &'static str,
    /// A sentence about it.
    detail: String,
    /// The wrong fields, the first 20; missing if no field is wrong.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
    /// How many more errors there are; missing if `errors` has all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    more_errors: Option<usize>,
}

/// The answer to the creation of one product; refuses it if it was not stored.
///
/// # Errors
/// [`Error::Invalid`] if it was not.
pub fn one(links: &Links, stored: Vec<Stored>) -> Result<Answer, Error> {
    let product = only(stored)?;
    let body = serde_json::to_vec(&ProductBody::new(&product, links)).map_err(Error::internal)?;
    let location = Some(links.product(product.id));
    Ok(Answer { status: 201, location, body: body.into(), replayed: false })
}

/// The products of a request that are wrong, each at its place; those that are right have gaps there.
#[derive(Debug)]
pub struct Refusals(Vec<Option<Invalid>>);

/// Parts the products of a request that may be stored from those that are wrong.
pub fn split(read: Vec<Result<NewProduct, Invalid>>) -> (Vec<NewProduct>, Refusals) {
    let mut news = Vec::with_capacity(read.len());
    let refused = read.into_iter().map(|item| item.map(|new| news.push(new)).err()).collect();
    (news, Refusals(refused))
}

impl Refusals {
    /// The answer about all products of the request, from what became of those that were right.
    ///
    /// # Errors
    /// [`Error::Internal`] if it cannot be written as JSON.
    pub fn answer(self, links: &Links, stored: Vec<Stored>) -> Result<Answer, Error> {
        let mut stored = stored.into_iter();
        let outcomes = self.0.into_iter().map(|refusal| match refusal {
            Some(invalid) => Err(NotStored::Invalid(invalid)),
            None => {
                stored.next().unwrap_or_else(|| Err(NotStored::Invalid(Invalid::field("product", "was not stored"))))
            }
        });
        let outcomes: Vec<Stored> = outcomes.collect();
        let created = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let items = outcomes.iter().enumerate().map(|(index, outcome)| item(index, outcome, links)).collect();
        let body = BatchBody { items, created, failed: outcomes.len() - created };
        let body = serde_json::to_vec(&body).map_err(Error::internal)?;
        Ok(Answer { status: 200, location: None, body: body.into(), replayed: false })
    }
}

fn item<'a>(index: usize, outcome: &'a Stored, links: &Links) -> ItemBody<'a> {
    let refused = |status, error| ItemBody { index, status, product: None, error: Some(error) };
    match outcome {
        Ok(product) => ItemBody { index, status: 201, product: Some(ProductBody::new(product, links)), error: None },
        Err(NotStored::Invalid(invalid)) => {
            let (code, detail) = (ErrorCode::Validation.as_str(), invalid.to_string());
            let more_errors = Some(invalid.errors.more()).filter(|more| *more > 0);
            refused(422, ItemErrorBody { code, detail, errors: invalid.errors.listed(), more_errors })
        }
        Err(gone @ NotStored::Gone(_)) => {
            let detail = Error::from(gone.clone()).to_string();
            let code = ErrorCode::Gone.as_str();
            refused(410, ItemErrorBody { code, detail, errors: &[], more_errors: None })
        }
    }
}
