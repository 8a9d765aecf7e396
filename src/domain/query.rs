//! List queries: filter, order and page.

use std::fmt;

use crate::domain::{
    Cursor, DeliveryQuery, EventFilter, EventKind, EventQuery, FieldErrors, Invalid, Price, ProductId, ProductStatus,
    UserId, search::SearchTerms,
};

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The items in order.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` on the last one.
    pub next_cursor: Option<String>,
}

/// Filter of a product list; all conditions must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductFilter {
    /// Only products of this user.
    pub user_id: Option<UserId>,
    /// Minimum price.
    pub min_price: Option<Price>,
    /// Maximum price.
    pub max_price: Option<Price>,
    /// Names that contain this text, ignoring case.
    pub name: Option<String>,
    /// Names and descriptions with these search terms; the last one may be a prefix.
    pub q: Option<SearchTerms>,
    /// Only products with this status.
    pub status: Option<ProductStatus>,
}

/// Sort key of a list; the id breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SortKey {
    /// `id`
    Id,
    /// `product_price`
    Price,
    /// `product_name`, by code points
    Name,
    /// `created_at`
    CreatedAt,
    /// Relevance for a search, which is the default order of searches.
    Relevance,
}

/// Sort order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sort {
    /// The sort key.
    pub key: SortKey,
    /// Whether the highest value comes first.
    pub descending: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self { key: SortKey::Id, descending: false }
    }
}

impl SortKey {
    /// Keys that a request may use.
    const ALL: [Self; 4] = [Self::Id, Self::Price, Self::Name, Self::CreatedAt];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Price => "product_price",
            Self::Name => "product_name",
            Self::CreatedAt => "created_at",
            Self::Relevance => "fit",
        }
    }
}

impl Sort {
    /// Allowed values of `sort`, for messages.
    pub const ALLOWED: &str = "id, product_price, product_name, created_at, each with a `-` before it for descending";

    /// The best matches first.
    pub const BY_RELEVANCE: Self = Self { key: SortKey::Relevance, descending: true };

    /// Parses an order in a cursor.
    pub(super) fn of_cursor(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| (text == Self::BY_RELEVANCE.to_string()).then_some(Self::BY_RELEVANCE))
    }

    /// Parses an order in a request.
    pub fn parse(text: &str) -> Option<Self> {
        let (column, descending) = text.strip_prefix('-').map_or((text, false), |column| (column, true));
        SortKey::ALL.into_iter().find(|key| key.as_str() == column).map(|key| Self { key, descending })
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.descending { "-" } else { "" }, self.key.as_str())
    }
}

/// A query for one page of products.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductQuery {
    /// The filter.
    pub filter: ProductFilter,
    /// The sort order.
    pub sort: Sort,
    /// Products per page, 1 to [`ProductQuery::MAX_LIMIT`].
    pub limit: u64,
    /// The start of the page.
    pub cursor: Option<Cursor>,
}

impl Default for ProductQuery {
    fn default() -> Self {
        Self { filter: ProductFilter::default(), sort: Sort::default(), limit: Self::DEFAULT_LIMIT, cursor: None }
    }
}

impl ProductQuery {
    /// Default page size.
    pub const DEFAULT_LIMIT: u64 = 20;
    /// Maximum page size.
    pub const MAX_LIMIT: u64 = 100;

    const PARAMETERS: [&str; 9] =
        ["user_id", "min_price", "max_price", "name", "q", "status", "sort", "limit", "cursor"];

    /// Parses a query from its decoded parameters.
    ///
    /// # Errors
    /// [`Invalid`] with every unknown, duplicate or invalid parameter.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Invalid> {
        let mut parameters = Parameters::read(pairs, &Self::PARAMETERS);
        let filter = ProductFilter {
            user_id: parameters.take("user_id", UserId::parse),
            min_price: parameters.take("min_price", Price::parse),
            max_price: parameters.take("max_price", Price::parse),
            name: parameters.take("name", parse_name),
            q: parameters.take("q", SearchTerms::parse),
            status: parameters.take("status", parse_status),
        };
        if let (Some(min), Some(max)) = (filter.min_price, filter.max_price)
            && min > max
        {
            parameters.error("min_price", format!("is {min}, above max_price {max}"));
        }
        let sort = parameters.take("sort", parse_sort);
        let limit = parameters.take("limit", |text| parse_limit(text, Self::MAX_LIMIT));
        let order_is_known = (sort.is_some() || !parameters.is_wrong("sort")) && !parameters.is_wrong("q");
        let sort = sort.unwrap_or(if filter.q.is_some() { Sort::BY_RELEVANCE } else { Sort::default() });
        let cursor = if order_is_known { parameters.take("cursor", |text| Cursor::decode(text, sort)) } else { None };
        Invalid::unless_empty(parameters.errors, || Self {
            filter,
            sort,
            limit: limit.unwrap_or(Self::DEFAULT_LIMIT),
            cursor,
        })
    }
}

impl crate::domain::UserQuery {
    /// Parses a query from its decoded parameters.
    ///
    /// # Errors
    /// [`Invalid`] with every unknown, duplicate or invalid parameter.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Invalid> {
        let mut parameters = Parameters::read(pairs, &["limit", "cursor"]);
        let limit = parameters.take("limit", |text| parse_limit(text, ProductQuery::MAX_LIMIT));
        let after = parameters.take("cursor", Self::decode_cursor);
        Invalid::unless_empty(parameters.errors, || Self { limit: limit.unwrap_or(ProductQuery::DEFAULT_LIMIT), after })
    }

    /// Returns the cursor of a page that ends with `last`.
    pub fn encode_cursor(last: &UserId) -> String {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        URL_SAFE_NO_PAD.encode(format!("u:{last}"))
    }

    fn decode_cursor(text: &str) -> Result<UserId, String> {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let id = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| text.strip_prefix("u:").and_then(|id| UserId::parse(id).ok()));
        id.ok_or_else(|| "is not a cursor of this list".into())
    }
}

impl crate::domain::DeadQuery {
    /// Parses a query from its decoded parameters.
    ///
    /// # Errors
    /// [`Invalid`] with every unknown, duplicate or invalid parameter.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Invalid> {
        let mut parameters = Parameters::read(pairs, &["limit", "cursor"]);
        let limit = parameters.take("limit", |text| parse_limit(text, ProductQuery::MAX_LIMIT));
        let before = parameters.take("cursor", crate::domain::DeadLetterCursor::decode);
        Invalid::unless_empty(parameters.errors, || Self {
            limit: limit.unwrap_or(ProductQuery::DEFAULT_LIMIT),
            before,
        })
    }
}

impl DeliveryQuery {
    /// Parses a query from its decoded parameters.
    ///
    /// # Errors
    /// [`Invalid`] with every unknown, duplicate or invalid parameter.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Invalid> {
        let mut parameters = Parameters::read(pairs, &["limit", "cursor"]);
        let limit = parameters.take("limit", |text| parse_limit(text, ProductQuery::MAX_LIMIT));
        let before =
            parameters.take("cursor", |text| text.parse().map_err(|_| "is not a cursor of this list".to_owned()));
        let limit = limit.unwrap_or(ProductQuery::DEFAULT_LIMIT);
        Invalid::unless_empty(parameters.errors, || Self { limit, before })
    }
}

impl EventQuery {
    /// Parses a subscription to all events from its decoded parameters.
    ///
    /// # Errors
    /// [`Invalid`] with every unknown, duplicate or invalid parameter.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Invalid> {
        let mut parameters = Parameters::read(pairs, &["product_id", "user_id", "types", "last_event_id"]);
        let filter = EventFilter {
            product_id: parameters.take("product_id", |text| text.parse().map_err(|_| "must be a number".into())),
            user_id: parameters.take("user_id", UserId::parse),
            kinds: parameters.take("types", parse_kinds).unwrap_or_default(),
        };
        let after = parameters.take("last_event_id", str::parse);
        Invalid::unless_empty(parameters.errors, || Self { filter, after })
    }

    /// Parses a subscription to one product's events.
    ///
    /// # Errors
    /// See [`EventQuery::parse`].
    pub fn of_product<'a>(
        product_id: ProductId,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Invalid> {
        let mut parameters = Parameters::read(pairs, &["types", "last_event_id"]);
        let kinds = parameters.take("types", parse_kinds).unwrap_or_default();
        let after = parameters.take("last_event_id", str::parse);
        let filter = EventFilter { product_id: Some(product_id), user_id: None, kinds };
        Invalid::unless_empty(parameters.errors, || Self { filter, after })
    }
}

/// Parameters of a query, each read once, and their errors.
struct Parameters<'a> {
    pairs: Vec<(&'a str, &'a str)>,
    errors: FieldErrors,
}

impl<'a> Parameters<'a> {
    fn read(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, known: &[&str]) -> Self {
        let mut parameters = Self { pairs: Vec::new(), errors: FieldErrors::default() };
        let unknown = format!("is not a known parameter; known are {}", known.join(", "));
        for (name, value) in pairs {
            if !known.contains(&name) {
                parameters.errors.push(name, unknown.as_str());
            } else if parameters.pairs.iter().any(|(used, _)| *used == name) {
                parameters.error(name, "is given more than once".into());
            } else {
                parameters.pairs.push((name, value));
            }
        }
        parameters
    }

    /// Takes a parameter. An empty one counts as absent: forms send all their fields, and scripts may send an empty
    /// cursor.
    fn take<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (_, value) = *self.pairs.iter().find(|(known, _)| *known == name)?;
        if value.is_empty() {
            return None;
        }
        parse(value).map_err(|message| self.error(name, message)).ok()
    }

    fn error(&mut self, field: &str, message: String) {
        self.errors.push(field, message);
    }

    fn is_wrong(&self, field: &str) -> bool {
        self.errors.name(field)
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    super::product::checked_text(text, 1, super::NewProduct::MAX_NAME_CHARS)
}

fn parse_status(text: &str) -> Result<ProductStatus, String> {
    ProductStatus::parse(text)
        .ok_or_else(|| format!("must be one of {}", ProductStatus::ALL.map(ProductStatus::as_str).join(", ")))
}

fn parse_sort(text: &str) -> Result<Sort, String> {
    Sort::parse(text).ok_or_else(|| format!("must be one of {}", Sort::ALLOWED))
}

fn parse_kinds(text: &str) -> Result<Vec<EventKind>, String> {
    let kinds = text.split(',').map(|name| EventKind::parse(name.trim())).collect::<Option<Vec<_>>>();
    kinds.ok_or_else(|| format!("must be comma-separated kinds: {}", EventKind::ALL.map(EventKind::as_str).join(", ")))
}

fn parse_limit(text: &str, most: u64) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|limit| (1..=most).contains(limit))
        .ok_or_else(|| format!("must be a number from 1 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_invalid_parameters_are_reported_together() {
        let wrong = [("limit", "0"), ("sort", "colour"), ("min_price", "9"), ("max_price", "1"), ("page", "2")];
        let invalid = ProductQuery::parse(wrong).expect_err("wrong");
        let mut named: Vec<_> = invalid.errors.listed().iter().map(|error| error.field.as_str()).collect();
        named.sort_unstable();
        assert_eq!(named, ["limit", "min_price", "page", "sort"]);
    }

    #[test]
    fn filters_order_and_page_are_parsed() {
        let query =
            ProductQuery::parse([("user_id", "1234"), ("min_price", "50"), ("sort", "-product_price"), ("limit", "5")])
                .expect("right");
        assert_eq!(query.sort, Sort { key: SortKey::Price, descending: true });
        assert_eq!(query.limit, 5);
        assert_eq!(query.filter.min_price.map(Price::units), Some(500_000));
    }

    #[test]
    fn an_empty_parameter_is_no_filter() {
        let empty = ["user_id", "min_price", "max_price", "name", "q", "status", "sort", "limit", "cursor"];
        assert_eq!(ProductQuery::parse(empty.map(|name| (name, ""))).expect("right"), ProductQuery::default());
        assert!(ProductQuery::parse([("colour", "")]).is_err(), "an unknown one is refused all the same");
        assert!(ProductQuery::parse([("name", " ")]).is_err());
    }

    #[test]
    fn a_users_cursor_decodes_to_the_same_id() {
        let id = UserId::parse("ü/1").expect("an id");
        let cursor = crate::domain::UserQuery::encode_cursor(&id);
        let query = crate::domain::UserQuery::parse([("cursor", cursor.as_str())]).expect("right");
        assert_eq!(query.after, Some(id));
    }
}
