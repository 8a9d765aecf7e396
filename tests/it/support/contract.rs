//! Checks every response in the tests against the OpenAPI description: route, status, content type and schema.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use parking_lot::Mutex;
use serde_json::{Value, value::RawValue};

static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_slice(&pm::http::openapi_json().unwrap()).unwrap());
static SCHEMAS: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// Panics if the description does not allow this response to `method` and `path`. Responses to unknown paths and
/// methods must be problems.
pub fn check(method: &str, path: &str, status: u16, kind: &str, body: &[u8]) {
    let path = path.split('?').next().unwrap_or_default();
    let method = if method == "HEAD" { "get".into() } else { method.to_lowercase() };
    let when = format!("{method} {path} {status}");
    let operation =
        template_of(path).and_then(|template| Some((template, DESCRIPTION["paths"][template].get(&method)?)));
    let Some((template, operation)) = operation else {
        let about_paths = path == "/docs" || path.starts_with("/docs/") || method == "options";
        assert!(
            about_paths || matches!(status, 400 | 404 | 405 | 413 | 431 | 503),
            "{when} is not in the OpenAPI description"
        );
        return;
    };
    let pointer = format!("/paths/{}/{method}/responses/{status}", escape(template));
    let response = operation["responses"].get(status.to_string());
    let response = response.unwrap_or_else(|| panic!("{when} has a status that {template} does not document"));
    let (response, pointer) = match response["$ref"].as_str() {
        Some(reference) => (DESCRIPTION.pointer(&reference[1..]).unwrap(), reference[1..].to_owned()),
        None => (response, pointer),
    };
    if body.is_empty() {
        return;
    }
    let contents = response["content"].as_object().unwrap_or_else(|| panic!("{when} is described without a body"));
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let described = contents.keys().find(|known| {
        let family = known.strip_suffix('*');
        *known == kind || family.is_some_and(|family| kind.starts_with(family))
    });
    let described = described.unwrap_or_else(|| panic!("{when} is not described as {kind}"));
    if kind.ends_with("json") {
        let body: Box<RawValue> = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{when}: {error}"));
        let body = exact(&body);
        let pointer = format!("{pointer}/content/{}/schema", escape(described));
        if let Err(error) = SCHEMAS.lock().validate(&pointer, &body) {
            panic!("{when} does not match its schema: {error}\n{body:#}");
        }
    }
}

/// Returns a JSON value with each float rounded correctly. serde_json can be off by one step, which turns the largest
/// price into a round number.
fn exact(json: &RawValue) -> Value {
    let text = json.get();
    let is_float = text.contains(['.', 'e', 'E']);
    match text.as_bytes().first() {
        Some(b'{') => {
            let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).unwrap();
            fields.into_iter().map(|(name, value)| (name, exact(&value))).collect()
        }
        Some(b'[') => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(text).unwrap();
            items.iter().map(|item| exact(item)).collect()
        }
        Some(b'-' | b'0'..=b'9') if is_float => Value::from(text.parse::<f64>().unwrap()),
        _ => serde_json::from_str(text).unwrap(),
    }
}

/// Returns the described path that matches `path`; a variable matches one segment, an image's key the rest.
fn template_of(path: &str) -> Option<&'static str> {
    let paths = DESCRIPTION["paths"].as_object().unwrap();
    let exact = paths.keys().find(|template| template.as_str() == path);
    let fits = |template: &&String| {
        if let Some(fixed) = template.strip_suffix("{key}") {
            return path.strip_prefix(fixed).is_some_and(|key| !key.is_empty());
        }
        let (expected, given): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        expected.len() == given.len()
            && expected.iter().zip(given).all(|(one, other)| match one.starts_with('{') {
                true => !other.is_empty(),
                false => *one == other,
            })
    };
    exact.or_else(|| paths.keys().find(fits)).map(String::as_str)
}

/// Compiled schemas.
#[derive(Default)]
struct Known {
    schemas: Schemas,
    places: HashMap<String, SchemaIndex>,
}

impl Known {
    fn validate(&mut self, pointer: &str, body: &Value) -> Result<(), String> {
        let place = match self.places.get(pointer) {
            Some(place) => *place,
            None => {
                let mut compiler = Compiler::new();
                compiler.set_default_draft(Draft::V2020_12);
                compiler.add_resource("urn:pm", DESCRIPTION.clone()).unwrap();
                let place = compiler.compile(&format!("urn:pm#{pointer}"), &mut self.schemas).unwrap();
                self.places.insert(pointer.to_owned(), place);
                place
            }
        };
        self.schemas.validate(body, place).map_err(|error| format!("{error:#}"))
    }
}

fn escape(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}
