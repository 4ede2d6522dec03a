//! Which path and method mean what.

use std::sync::Arc;

use aerostat_openai::Endpoint;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use crate::app::App;
use crate::body::Body;
use crate::gate;
use crate::ids::is_id;
use crate::ollama::Door;
use crate::problem::Problem;
use crate::responses::is_response;
use crate::{answer, batches, events, files, info, ollama, page, query, responses, tokens};

/// Headers of a request at most.
const HEADERS_MAX: usize = 100;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    /// A file of the page.
    Page(usize),
    Health,
    Version,
    Models,
    Model(String),
    Answer(Endpoint),
    Rerank,
    Tokenize,
    Detokenize,
    TokenizerInfo,
    Metrics,
    Status,
    Requests,
    Events,
    Request(String),
    Responses,
    Response(String),
    ResponseInput(String),
    ResponseCancel(String),
    Ollama(Door),
    Files,
    File(String),
    FileContent(String),
    Batches,
    Batch(String),
    BatchCancel(String),
    BatchOutput(String),
}

impl Route {
    /// What a path names, its segments decoded.
    fn of(path: &str) -> Option<Self> {
        if let Some(endpoint) = Endpoint::at(path) {
            return Some(Self::Answer(endpoint));
        }
        if let Some(id) = path.strip_prefix("/v1/models/") {
            return decode(id).filter(|id| !id.is_empty()).map(Self::Model);
        }
        if let Some(file) = page::at(path) {
            return Some(Self::Page(file));
        }
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        Some(match segments[..] {
            ["health"] => Self::Health,
            ["version"] => Self::Version,
            ["v1", "models"] => Self::Models,
            ["v1", "rerank"] | ["rerank"] => Self::Rerank,
            ["score"] => Self::Answer(Endpoint::Score),
            ["tokenize"] => Self::Tokenize,
            ["detokenize"] => Self::Detokenize,
            ["tokenizer_info"] => Self::TokenizerInfo,
            ["metrics"] => Self::Metrics,
            ["v1", "aerostat", "status"] => Self::Status,
            ["v1", "aerostat", "requests"] => Self::Requests,
            ["v1", "aerostat", "events"] => Self::Events,
            ["v1", "aerostat", "requests", id] => Self::Request(id.to_owned()),
            ["v1", "responses"] => Self::Responses,
            ["v1", "responses", id] if is_response(id) => Self::Response(id.to_owned()),
            ["v1", "responses", id, "input_items"] if is_response(id) => Self::ResponseInput(id.to_owned()),
            ["v1", "responses", id, "cancel"] if is_response(id) => Self::ResponseCancel(id.to_owned()),
            ["api", name] => Self::Ollama(Door::at(name)?),
            ["v1", "files"] => Self::Files,
            ["v1", "files", id] if is_id(id, "file") => Self::File(id.to_owned()),
            ["v1", "files", id, "content"] if is_id(id, "file") => Self::FileContent(id.to_owned()),
            ["v1", "batches"] => Self::Batches,
            ["v1", "batches", id] if is_id(id, "batch") => Self::Batch(id.to_owned()),
            ["v1", "batches", id, "cancel"] if is_id(id, "batch") => Self::BatchCancel(id.to_owned()),
            ["v1", "aerostat", "batches", id, "output"] if is_id(id, "batch") => {
                Self::BatchOutput(id.to_owned())
            }
            _ => return None,
        })
    }

    /// The methods that it takes.
    fn methods(&self) -> &'static str {
        match self {
            Self::Answer(_) | Self::Rerank | Self::Tokenize | Self::Detokenize => "POST",
            Self::BatchCancel(_) | Self::Responses | Self::ResponseCancel(_) => "POST",
            Self::Ollama(door) => door.methods(),
            Self::Files | Self::Batches => "GET, POST",
            Self::Request(_) | Self::File(_) | Self::Response(_) => "GET, DELETE",
            _ => "GET",
        }
    }

    /// Whether what follows the question mark is read. Of the page, `/health` and the list of models it may be anything: browsers
    /// and watchers put there what keeps answers from being remembered, and clients their version.
    fn reads_query(&self, method: &Method) -> bool {
        match self {
            Self::Page(_) | Self::Health | Self::Models | Self::ResponseInput(_) => true,
            Self::Requests | Self::Response(_) | Self::Files | Self::Batches => method == Method::GET,
            _ => false,
        }
    }

    /// Whether it needs no key.
    fn is_open(&self) -> bool {
        match self {
            Self::Health => true,
            Self::Page(file) => page::is_open(*file),
            _ => false,
        }
    }
}

/// Lets a request in, and answers it.
pub(crate) async fn handle(
    app: &Arc<App>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let (headers, uri) = (request.headers(), request.uri());
    check_size(app, &request)?;
    gate::check_host(headers, uri, &app.config.allow_hosts)?;
    gate::check_origin(headers)?;
    gate::check_demands(headers)?;
    let route = Route::of(uri.path());
    let is_open = route.as_ref().is_some_and(Route::is_open);
    if !is_open {
        let place = gate::check_key(headers, &app.config.keys)?;
        request.extensions_mut().insert(gate::KeyPlace(place));
    }
    let unknown = || Problem::not_found("there is nothing at this path").closing();
    let route = route.filter(|route| app.config.ollama || !matches!(route, Route::Ollama(_)));
    let route = route.ok_or_else(unknown)?;
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    if !route.methods().split(", ").any(|name| name == method.as_str()) {
        return Err(Problem::method(route.methods()).closing());
    }
    dispatch(app, route, &method, request).await
}

async fn dispatch(
    app: &Arc<App>,
    route: Route,
    method: &Method,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let query = request.uri().query().unwrap_or("").to_owned();
    if !route.reads_query(method) {
        query::none(&query).map_err(Problem::closing)?;
    }
    match (route, method) {
        (Route::Page(file), _) => Ok(page::response(file)),
        (Route::Health, _) => Ok(info::health(app)),
        (Route::Version, _) => Ok(info::version()),
        (Route::Models, _) => info::models(app),
        (Route::Model(name), _) => info::model_named(app, &name),
        (Route::Answer(endpoint), _) => answer::answer(app, endpoint, request).await,
        (Route::Rerank, _) => answer::rerank(app, request).await,
        (Route::Tokenize, _) => tokens::tokenize(app, request).await,
        (Route::Detokenize, _) => tokens::detokenize(app, request).await,
        (Route::TokenizerInfo, _) => tokens::info(app),
        (Route::Metrics, _) => info::metrics(app),
        (Route::Status, _) => info::status(app),
        (Route::Requests, _) => info::requests(app, &query),
        (Route::Events, _) => events::events(app),
        (Route::Request(id), &Method::DELETE) => info::cancel(app, &id),
        (Route::Request(id), _) => info::request(app, &id),
        (Route::Responses, _) => responses::create(app, request).await,
        (Route::Response(id), &Method::DELETE) => responses::delete(app, id).await,
        (Route::Response(id), _) => responses::one(app, id, &query).await,
        (Route::ResponseInput(id), _) => responses::input_items(app, id, &query).await,
        (Route::ResponseCancel(id), _) => responses::cancel(app, id).await,
        (Route::Ollama(door), _) => Ok(ollama::handle(app, door, request).await),
        (Route::Files, &Method::POST) => files::upload(app, request).await,
        (Route::Files, _) => files::list(app, &query).await,
        (Route::File(id), &Method::DELETE) => files::delete(app, id).await,
        (Route::File(id), _) => files::one(app, id).await,
        (Route::FileContent(id), _) => files::content(app, id, request.headers()).await,
        (Route::Batches, &Method::POST) => batches::create(app, app.worker()?, request).await,
        (Route::Batches, _) => batches::list(app, app.worker()?, &query).await,
        (Route::Batch(id), _) => batches::one(app, app.worker()?, id).await,
        (Route::BatchCancel(id), _) => batches::cancel(app, app.worker()?, id).await,
        (Route::BatchOutput(id), _) => batches::output(app, id, request.headers()).await,
    }
}

/// Refuses headers that are more, or larger together, than they may be.
fn check_size(app: &App, request: &Request<Incoming>) -> Result<(), Problem> {
    let max = app.config.limits.header_bytes_max;
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let few = request.headers().len() <= HEADERS_MAX;
    if few && headers.sum::<usize>() + request.uri().to_string().len() <= max {
        return Ok(());
    }
    let message = match few {
        true => format!("the headers are larger than {max} bytes"),
        false => format!("the request has more than {HEADERS_MAX} headers"),
    };
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Err(Problem::new(status, "headers_too_large", message).closing())
}

/// A text in which `%2F` stands for `/` and the like; `None` if it is not well formed.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(if byte == b'%' { (digit()? << 4 | digit()?) as u8 } else { byte });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_routes() {
        for (path, route) in [
            ("/health", Some(Route::Health)),
            ("/v1/chat/completions", Some(Route::Answer(Endpoint::Chat))),
            ("/v1/models/org/name", Some(Route::Model("org/name".to_owned()))),
            ("/v1/models/org%2Fname%20x", Some(Route::Model("org/name x".to_owned()))),
            ("/v1/models/%zz", None),
            ("/v1/models/", None),
            ("/v1/models", Some(Route::Models)),
            ("/v1/chat/completions/", None),
            ("//health", None),
            ("/Health", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }
    /// The document names what there is, and nothing else.
    #[test]
    fn the_document_and_the_routes_agree() {
        let document: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut kinds = std::collections::HashSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            let digits = "0".repeat(32);
            let id = match path {
                path if path.contains("/files/") => format!("file-{digits}"),
                path if path.contains("/batches/") => format!("batch-{digits}"),
                path if path.contains("/responses/") => format!("resp_{digits}"),
                _ => "name".to_owned(),
            };
            let route =
                Route::of(&path.replace("{id}", &id)).unwrap_or_else(|| panic!("{path} is not there"));
            let named = operations.as_object().unwrap().keys().filter(|key| *key != "parameters");
            let methods = named.map(|method| method.to_uppercase()).collect::<Vec<_>>().join(", ");
            assert_eq!(methods, route.methods(), "{path}");
            let open = operations["get"]["security"].is_array();
            assert_eq!(open, route.is_open(), "{path}");
            kinds.insert(std::mem::discriminant(&route));
        }
        let all = [
            Route::Page(0),
            Route::Health,
            Route::Version,
            Route::Models,
            Route::Model(String::new()),
            Route::Answer(Endpoint::Chat),
            Route::Rerank,
            Route::Tokenize,
            Route::Detokenize,
            Route::TokenizerInfo,
            Route::Metrics,
            Route::Status,
            Route::Requests,
            Route::Request(String::new()),
            Route::Events,
            Route::Responses,
            Route::Response(String::new()),
            Route::ResponseInput(String::new()),
            Route::ResponseCancel(String::new()),
            Route::Ollama(Door::Chat),
            Route::Files,
            Route::File(String::new()),
            Route::FileContent(String::new()),
            Route::Batches,
            Route::Batch(String::new()),
            Route::BatchCancel(String::new()),
            Route::BatchOutput(String::new()),
        ];
        assert!(all.iter().all(|route| kinds.contains(&std::mem::discriminant(route))));
    }
}
