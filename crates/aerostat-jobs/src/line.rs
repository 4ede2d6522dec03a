//! Lines of batch files: the envelope around a request on its way in, and around its response on its way out.

use aerostat_openai::{ApiRequest, Endpoint, Fields, Part, Reading, Refusal, Setting, Stamp, brief};
use serde_json::{Value, json};

/// A line of the input that was read and found good.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) custom_id: String,
    pub(crate) request: ApiRequest,
}

/// Reads a line of the input; with the refusal comes its custom_id where there is one.
pub(crate) fn read(setting: &Setting, number: u64, line: &[u8]) -> Result<Item, (Option<String>, Refusal)> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|e| (None, Refusal::new("invalid_json", format!("the line is not JSON: {e}"))))?;
    let Value::Object(map) = value else {
        let message = format!("the line is {}, not a JSON object", brief(&value));
        return Err((None, Refusal::new("invalid_json", message)));
    };
    let reading = Reading::new(false);
    let mut fields = Fields::new(map, &reading);
    let custom_id = match fields.need("custom_id") {
        Ok(Value::String(id)) => id,
        Ok(other) => {
            let message = format!("`custom_id` is {}; it must be text", brief(&other));
            return Err((None, Refusal::value("custom_id", message)));
        }
        Err(refusal) => return Err((None, refusal)),
    };
    match request(setting, number, fields) {
        Ok(request) => Ok(Item { custom_id, request }),
        Err(refusal) => Err((Some(custom_id), refusal)),
    }
}

fn request(setting: &Setting, number: u64, mut fields: Fields<'_>) -> Result<ApiRequest, Refusal> {
    fields.only("method", &[json!("POST")])?;
    let url = match fields.need("url")? {
        Value::String(url) => url,
        other => {
            return Err(Refusal::value("url", format!("`url` is {}; it must be text", brief(&other))));
        }
    };
    let Value::Object(body) = fields.need("body")? else {
        return Err(Refusal::value("body", "`body` must be a JSON object"));
    };
    fields.finish()?;
    let Some(endpoint) = Endpoint::at(&url) else {
        let known = Endpoint::ALL.map(Endpoint::path).join(", ");
        let message = format!("`url` {url:?} is not known; it is one of {known}");
        return Err(Refusal::new("unknown_url", message).about("url"));
    };
    setting.read(endpoint, body, number)
}

/// The `id` of a line of the output: the line's number in the input, by which a resumed job knows it again.
pub(crate) fn id(number: u64) -> String {
    format!("batch_req_{}", ordinal(number))
}

/// The line's number that an `id` holds.
pub(crate) fn number(id: &str) -> Option<u64> {
    id.strip_prefix("batch_req_")?.parse::<u64>().ok()?.checked_sub(1)
}

/// The output line of a request that was served; `created` is when the job was begun.
pub(crate) fn success(
    setting: &Setting,
    created: u64,
    number: u64,
    item: &Item,
    parts: &[Part],
) -> Result<Value, Refusal> {
    let body = setting.respond(&item.request, parts, &Stamp { id: ordinal(number), created })?;
    Ok(json!({
        "id": id(number),
        "custom_id": item.custom_id,
        "response": {"status_code": 200, "request_id": request_id(number), "body": body},
        "error": null,
    }))
}

/// The line of a request that failed, for the error file. `line` is there for lines without a custom_id.
pub(crate) fn failure(number: u64, custom_id: Option<&str>, refusal: &Refusal) -> Value {
    let (status, body) = (refusal.status(), refusal.body());
    json!({
        "id": id(number),
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": request_id(number), "body": body},
        "error": {"code": refusal.code(), "message": refusal.message(), "line": number + 1},
    })
}

fn request_id(number: u64) -> String {
    format!("req_{}", ordinal(number))
}

/// Lines are counted from 1 where people see it.
fn ordinal(number: u64) -> String {
    format!("{:010}", number + 1)
}
