//! Responses to the creation of one or several products.
//!
//! That of a single product is made in the transaction that stores it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{Links, ProductBody},
    catalog::{Answer, Error, NotStored, Stored},
    code::ErrorCode,
    domain::{FieldError, Invalid, NewProduct, Product},
};

/// The results of a batch of products.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult)]
pub struct BatchBody<'a> {
    /// One result for each product, in the order of the request.
    items: Vec<ItemBody<'a>>,
    /// Number of products created.
    created: usize,
    /// Number of products not created.
    failed: usize,
}

/// The result of one product of a batch.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchItem)]
struct ItemBody<'a> {
    /// Index of the product in the request, from 0.
    index: usize,
    /// The HTTP status of a separate request for this product: 201 if it was created, 422 if it is invalid, 410 if an
    /// earlier request with the same idempotency key created it and it was deleted, 503 if the database failed after
    /// earlier products of the batch were stored. Send a product with 503 again, or repeat the whole request if it had
    /// an idempotency key.
    status: u16,
    /// The product, if it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    product: Option<ProductBody<'a>>,
    /// Why the product was not created.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<ItemErrorBody<'a>>,
}

/// Why a product was not created.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchItemError)]
struct ItemErrorBody<'a> {
    /// Error code.
    code: &'static str,
    /// Description of the error.
    detail: String,
    /// The first 20 invalid fields; absent if there are none.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
    /// Number of further errors; absent if `errors` lists all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    more_errors: Option<usize>,
}

/// Returns the response to the creation of one product.
///
/// # Errors
/// [`Error::Internal`] if it cannot be serialized.
pub fn one(links: &Links, product: &Product) -> Result<Answer, Error> {
    let body = serde_json::to_vec(&ProductBody::new(product, links)).map_err(Error::internal)?;
    let location = Some(links.product(product.id));
    Ok(Answer { status: 201, location, body: body.into(), replayed: false })
}

/// The invalid products of a request by index; `None` for a valid one.
#[derive(Debug)]
pub struct Refusals(Vec<Option<Invalid>>);

/// Splits the products of a request into valid and invalid ones.
pub fn split(read: Vec<Result<NewProduct, Invalid>>) -> (Vec<NewProduct>, Refusals) {
    let mut news = Vec::with_capacity(read.len());
    let refused = read.into_iter().map(|item| item.map(|new| news.push(new)).err()).collect();
    (news, Refusals(refused))
}

impl Refusals {
    /// Returns the response to the whole batch from the outcomes of its valid products.
    ///
    /// # Errors
    /// [`Error::Internal`] if it cannot be serialized.
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
        Err(NotStored::Failed(_)) => {
            let detail = "the database failed before it stored this product; send the product again".into();
            let code = ErrorCode::Unavailable.as_str();
            refused(503, ItemErrorBody { code, detail, errors: &[], more_errors: None })
        }
    }
}
