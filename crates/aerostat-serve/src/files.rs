//! `/v1/files`: uploads, lists, contents.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyDataStream, BodyExt};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use hyper::{HeaderMap, Request, Response, StatusCode};
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use crate::app::App;
use crate::body::{Body, Broken, Live, declared, slow};
use crate::folder::at;
use crate::ids;
use crate::problem::Problem;
use crate::query::pairs;
use crate::store::{Fault, FileRow, Page, Store, Temporary};
use crate::text::{json_response, line, whole};

/// Bytes that are gathered before they are written, and that a download reads at once: as many clients as there may be
/// have some of them each.
const PIECE_BYTES: usize = 128 << 10;
/// What a form has beside its file, at most.
const FORM_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a field that is no file.
const FIELD_BYTES_MAX: u64 = 4096;
/// Files in a list, unless fewer are asked for.
const LIST_MAX: usize = 10_000;

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Absent => Self::not_found(fault.to_string()),
            Fault::InUse => Self::new(StatusCode::CONFLICT, "file_in_use", fault.to_string()),
            Fault::Damaged(message) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "file_damaged", message),
            Fault::Full(message) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "storage_full", message),
            Fault::Failed(message) => Self::internal(message),
        }
    }
}

/// POST `/v1/files`.
pub(crate) async fn upload(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store().map_err(Problem::closing)?);
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let boundary = multer::parse_boundary(kind).map_err(|_| {
        let message = "a file is sent as multipart/form-data";
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message).closing()
    })?;
    let bytes_max = app.config.limits.file_bytes_max;
    let length = declared(&request).unwrap_or(0);
    if length > bytes_max.saturating_add(FORM_BYTES_MAX) {
        return Err(too_large(bytes_max));
    }
    let shared = Arc::clone(&store);
    app.disk(move || Ok(shared.check_room(length)?)).await.map_err(Problem::closing)?;
    let mut form = Form { file: None, purpose: None, anchor: None, seconds: None };
    let whole = bytes_max.saturating_add(FORM_BYTES_MAX);
    let limits = SizeLimit::new().whole_stream(whole).per_field(FIELD_BYTES_MAX).for_field("file", bytes_max);
    let mut body = request.into_body();
    let constraints = Constraints::new().size_limit(limits);
    let mut parts = Multipart::with_constraints(BodyDataStream::new(&mut body), boundary, constraints);
    form.take(app, &store, &mut parts).await.map_err(Problem::closing)?;
    drop(parts);
    skip_rest(app, &mut body).await.map_err(Problem::closing)?;
    let (row, written) = form.row()?;
    let answer = row.object();
    app.disk(move || {
        store.check_room(row.bytes)?;
        Ok(store.keep(&written.path, &written.file, &row)?)
    })
    .await?;
    Ok(json_response(StatusCode::OK, &answer))
}

fn too_large(bytes_max: u64) -> Problem {
    let message = format!("a file may have {bytes_max} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", message).closing()
}

/// What an upload said so far.
struct Form {
    file: Option<Written>,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

/// A file that was written and is not kept yet.
struct Written {
    path: Temporary,
    file: File,
    name: String,
    bytes: u64,
}

impl Form {
    async fn take(
        &mut self,
        app: &Arc<App>,
        store: &Arc<Store>,
        parts: &mut Multipart<'_>,
    ) -> Result<(), Problem> {
        let idle = app.config.limits.body_idle_time;
        while let Some(field) = patient(idle, parts.next_field(), app).await? {
            let name = field.name().unwrap_or("").to_owned();
            let place = match name.as_str() {
                "file" if self.file.is_none() => {
                    self.file = Some(write(app, store, field).await?);
                    continue;
                }
                "purpose" => &mut self.purpose,
                "expires_after[anchor]" => &mut self.anchor,
                "expires_after[seconds]" => &mut self.seconds,
                "file" => return Err(Problem::value("file", "the form has more than one `file`")),
                other => {
                    let other: String = other.chars().take(100).collect();
                    return Err(Problem::bad("unsupported_parameter", format!("`{other}` is not supported")));
                }
            };
            if place.replace(patient(idle, field.text(), app).await?).is_some() {
                return Err(Problem::value(&name, format!("the form has more than one `{name}`")));
            }
        }
        Ok(())
    }

    /// The row of the file, if the form is complete.
    fn row(&mut self) -> Result<(FileRow, Written), Problem> {
        let purpose = self.purpose.as_deref().unwrap_or("");
        if purpose != "batch" {
            return Err(Problem::value("purpose", "`purpose` must be \"batch\": files serve batches only"));
        }
        let created = ids::now();
        let expires = expires_after(self.anchor.as_deref(), self.seconds.as_deref(), created)?;
        let missing = || Problem::value("file", "the form has no `file`");
        let written = self.file.take().ok_or_else(missing)?;
        let row = FileRow {
            id: format!("file-{}", ids::hex()),
            filename: written.name.clone(),
            purpose: purpose.to_owned(),
            bytes: written.bytes,
            created,
            expires,
        };
        Ok((row, written))
    }
}

/// When something made at `created` goes, as `expires_after` says it.
pub(crate) fn expires_after(
    anchor: Option<&str>,
    seconds: Option<&str>,
    created: u64,
) -> Result<Option<u64>, Problem> {
    let wrong = |message: &str| Problem::value("expires_after", message);
    match (anchor, seconds) {
        (None, None) => Ok(None),
        (Some("created_at"), Some(seconds)) => {
            let seconds = seconds.parse::<u64>().ok().filter(|s| (3600..=2_592_000).contains(s));
            let seconds =
                seconds.ok_or_else(|| wrong("`expires_after.seconds` must be from 3600 to 2592000"))?;
            Ok(Some(created + seconds))
        }
        _ => Err(wrong("`expires_after` has an anchor, which is \"created_at\", and seconds")),
    }
}

/// Reads what follows a form, which is not looked at: a request that ends before its length says is not whole, whatever it
/// has.
async fn skip_rest(app: &Arc<App>, body: &mut Incoming) -> Result<(), Problem> {
    let mut bytes = 0;
    while let Some(piece) =
        timeout(app.config.limits.body_idle_time, body.frame()).await.map_err(|_| slow())?
    {
        let piece =
            piece.map_err(|e| Problem::bad("invalid_form", format!("the request is not whole: {e}")))?;
        bytes += piece.data_ref().map_or(0, |data| data.len() as u64);
        if bytes > FORM_BYTES_MAX {
            return Err(too_large(app.config.limits.file_bytes_max));
        }
    }
    Ok(())
}

/// Waits for a piece of a form, but not for ever.
async fn patient<T>(
    idle: Duration,
    piece: impl Future<Output = multer::Result<T>>,
    app: &App,
) -> Result<T, Problem> {
    match timeout(idle, piece).await {
        Err(_) => Err(slow()),
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. })) => {
            Err(too_large(app.config.limits.file_bytes_max))
        }
        Ok(Err(e)) => Err(Problem::bad("invalid_form", format!("the form cannot be read: {e}"))),
    }
}

/// Writes a file as it comes.
async fn write(app: &Arc<App>, store: &Arc<Store>, mut field: Field<'_>) -> Result<Written, Problem> {
    let idle = app.config.limits.body_idle_time;
    let name: String =
        field.file_name().unwrap_or("file").chars().filter(|c| !c.is_control()).take(255).collect();
    let shared = Arc::clone(store);
    let (path, mut file) = app.disk(move || Ok(shared.temporary()?)).await?;
    let mut bytes = 0;
    let mut gathered = Vec::new();
    loop {
        let piece = patient(idle, field.chunk(), app).await?;
        let ended = piece.is_none();
        gathered.extend_from_slice(&piece.unwrap_or_default());
        if gathered.len() < PIECE_BYTES && !ended {
            continue;
        }
        bytes += gathered.len() as u64;
        let batch = std::mem::take(&mut gathered);
        let place = path.path().to_owned();
        let work = move || {
            file.write_all(&batch).map_err(|e| Fault::from(at(&place, &e)))?;
            Ok(file)
        };
        file = app.disk(work).await?;
        if ended {
            return Ok(Written { path, file, name, bytes });
        }
    }
}

/// GET `/v1/files`.
pub(crate) async fn list(app: &App, query: &str) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store()?);
    let page = page(query, LIST_MAX, LIST_MAX, true)?;
    // There may be thousands, and they are put into words beside the connections.
    let list = move || {
        let (rows, more) = store.files(&page)?;
        Ok(line(&list_body(rows.iter().map(FileRow::object).collect(), more)))
    };
    Ok(whole(StatusCode::OK, "application/json", app.disk(list).await?))
}

/// A list as clients see it.
pub(crate) fn list_response(data: Vec<Value>, more: bool) -> Response<Body> {
    json_response(StatusCode::OK, &list_body(data, more))
}

fn list_body(data: Vec<Value>, more: bool) -> Value {
    let id = |entry: Option<&Value>| entry.map_or(Value::Null, |entry| entry["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    json!({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more})
}

/// The page of a list that a query asks for.
pub(crate) fn page(query: &str, usual: usize, most: usize, files: bool) -> Result<Page, Problem> {
    let mut page = Page { after: None, limit: usual, ascending: false, purpose: None };
    for (name, value) in pairs(query)? {
        let wrong = || Problem::value(name, format!("`{name}` cannot be {value:?}"));
        match name {
            "after" => page.after = Some(value.to_owned()).filter(|after| !after.is_empty()),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
                page.limit = limit.ok_or_else(wrong)?;
            }
            "order" if files => {
                page.ascending = match value {
                    "asc" => true,
                    "desc" => false,
                    _ => return Err(wrong()),
                };
            }
            "purpose" if files => page.purpose = Some(value.to_owned()).filter(|purpose| !purpose.is_empty()),
            _ => return Err(Problem::bad("unsupported_parameter", format!("`{name}` is not supported"))),
        }
    }
    Ok(page)
}

/// GET `/v1/files/{id}`.
pub(crate) async fn one(app: &App, id: String) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store()?);
    let row = app.disk(move || Ok(store.file(&id)?)).await?;
    Ok(json_response(StatusCode::OK, &row.object()))
}

/// DELETE `/v1/files/{id}`.
pub(crate) async fn delete(app: &App, id: String) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store()?);
    let body = json!({"id": id, "object": "file", "deleted": true});
    app.disk(move || Ok(store.delete_file(&id)?)).await?;
    Ok(json_response(StatusCode::OK, &body))
}

/// GET `/v1/files/{id}/content`.
pub(crate) async fn content(app: &App, id: String, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let store = Arc::clone(app.store()?);
    let path = app.disk(move || {
        store.file(&id)?;
        Ok(store.whole_file(&id)?)
    });
    download(app, path.await?, headers).await
}

/// The bytes of a file, or a range of them.
pub(crate) async fn download(
    app: &App,
    path: PathBuf,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let opened = app.disk(move || {
        let file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Fault::Absent,
            _ => Fault::from(at(&path, &e)),
        })?;
        let bytes = file.metadata().map_err(|e| Fault::from(at(&path, &e)))?.len();
        Ok((file, bytes))
    });
    let (file, bytes) = opened.await?;
    let asked = headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(|text| range(text, bytes));
    let (status, (start, end)) = match asked {
        None => (StatusCode::OK, (0, bytes)),
        Some(Some(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(None) => {
            let message = format!("the file has {bytes} bytes");
            return Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid_range", message));
        }
    };
    let (sender, pieces) = channel(1);
    tokio::task::spawn_blocking(move || read(file, start, end, &sender));
    let mut response = Response::new(Body::live(Download { pieces, left: end - start }));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {start}-{}/{bytes}", end - 1))
    {
        headers.insert(CONTENT_RANGE, value);
    }
    Ok(response)
}

/// The first and one more than the last byte that a range asks for: `None` for what is no range that is known, which is
/// as good as none; `Some(None)` for one that is not in the file.
fn range(text: &str, bytes: u64) -> Option<Option<(u64, u64)>> {
    let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok();
    Some(
        match (start, end) {
            ("", last) => Some((bytes.saturating_sub(number(last)?), bytes)),
            (first, "") => Some((number(first)?, bytes)),
            (first, last) => Some((number(first)?, number(last)?.saturating_add(1).min(bytes))),
        }
        .filter(|(start, end)| start < end),
    )
}

fn read(mut file: File, start: u64, end: u64, to: &tokio::sync::mpsc::Sender<Bytes>) {
    let mut left = end - start;
    let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
    let mut go = || -> std::io::Result<()> {
        file.seek(SeekFrom::Start(start))?;
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(piece.get_mut(..most).unwrap_or_default())?;
            let read = piece.get(..count).unwrap_or_default();
            // Nobody wants more, or the file has less than it had.
            if count == 0 || to.blocking_send(Bytes::copy_from_slice(read)).is_err() {
                return Ok(());
            }
            left -= count as u64;
        }
        Ok(())
    };
    if let Err(e) = go() {
        eprintln!("error: a file cannot be read: {e}");
    }
}

/// A file on its way out; what is missing in the end breaks the connection.
struct Download {
    pieces: Receiver<Bytes>,
    left: u64,
}

impl Live for Download {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match std::task::ready!(self.pieces.poll_recv(context)) {
            Some(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(piece)))
            }
            None if self.left == 0 => Poll::Ready(None),
            None => {
                self.left = 0;
                Poll::Ready(Some(Err(Broken)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_as_browsers_send_them() {
        for (text, want) in [
            ("bytes=0-3", Some(Some((0, 4)))),
            ("bytes=4-", Some(Some((4, 10)))),
            ("bytes=-3", Some(Some((7, 10)))),
            ("bytes=0-99", Some(Some((0, 10)))),
            ("bytes=-99", Some(Some((0, 10)))),
            ("bytes=10-", Some(None)),
            ("bytes=5-4", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=18446744073709551615-18446744073709551615", Some(None)),
            ("bytes=a-b", None),
            ("lines=0-1", None),
            ("bytes=0-1,3-4", None),
        ] {
            assert_eq!(range(text, 10), want, "{text}");
        }
    }

    #[test]
    fn pages_are_asked_for_by_queries() {
        let page = |query: &str| {
            page(query, 20, 100, true).map_err(|problem| problem.body()["error"]["param"].clone())
        };
        let good = page("limit=5&after=file-1&order=asc&purpose=batch").unwrap();
        assert_eq!((good.limit, good.after.as_deref(), good.ascending), (5, Some("file-1"), true));
        assert_eq!(page("").unwrap().limit, 20);
        for bad in ["limit=0", "limit=101", "limit=x", "order=up", "limit=1&limit=2"] {
            assert!(page(bad).is_err(), "{bad}");
        }
        assert!(page("novel=1").is_err());
    }
}
