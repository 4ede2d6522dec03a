//! Lines of batch files: the envelope around a request on its way in, and around its response on its way out.

use std::io::Write;

use aerostat_openai::{
    ApiRequest, Endpoint, Fields, LazyGrammars, Part, Reading, Refusal, Setting, Stamp, WriteError, brief,
    json, one_line,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::output::Appender;

/// The member of a request that cuts its prompts.
const TRUNCATE: &[u8] = b"truncate_prompt_tokens";
/// Memory that a byte of a line takes until it is a prompt: the line, what it says, the messages that a template is given, and
/// what comes of that. Measured: 5.9 for 4 MB of text in a message.
const TEXT_BYTES: u64 = 6;
/// And what its tokens take while they are made. Measured: 13 in all for 8 MB of short words.
const TOKENS_BYTES: u64 = 8;
/// Characters of a custom_id that an error line repeats at most.
const ID_CHARS_MAX: usize = 300;

/// A line of the input that was read and found good.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) custom_id: String,
    pub(crate) request: ApiRequest,
}

/// Reads a line of the input; with the refusal comes its custom_id where there is one.
pub(crate) fn read(setting: &Setting, number: u64, line: &[u8]) -> Result<Item, (Option<String>, Refusal)> {
    let list_max = setting.list_max();
    // A prompt that is to be cut may be longer.
    let cut = || line.windows(TRUNCATE.len()).any(|part| part == TRUNCATE);
    let Weight { longest_list, longest_text, bytes } = Weight::of(line);
    let cut = cut();
    if longest_list > list_max && !cut {
        let id = custom_id(line);
        let message = format!(
            "a list in the line has more than {list_max} elements, more than a context or a request holds"
        );
        return Err((id, Refusal::new("context_length_exceeded", message)));
    }
    let text_max = setting.text_bytes_max();
    if longest_text > text_max && !cut {
        let message = format!(
            "a text in the line has {longest_text} bytes; no context of this size holds more than {text_max}"
        );
        return Err((custom_id(line), Refusal::new("context_length_exceeded", message)));
    }
    let bytes_max = setting.request_bytes_max();
    // Of a text that is cut, all tokens are made first.
    let bytes = if cut { bytes + TOKENS_BYTES * line.len() as u64 } else { bytes };
    if bytes > bytes_max {
        let message = format!(
            "the line takes {bytes} bytes to read, more than the {bytes_max} of so little memory (--memory); with more, begin \
             anew (--restart)"
        );
        return Err((custom_id(line), Refusal::new("line_too_long", message)));
    }
    let value = json::from_slice(line)
        .map_err(|e| (None, Refusal::new("invalid_json", json::told("the line", &e))))?;
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

/// The `custom_id` of a line, if it has one.
pub(crate) fn custom_id(line: &[u8]) -> Option<String> {
    serde_json::from_slice::<Head>(line).ok()?.custom_id
}

/// What is read of a line that is not read whole.
#[derive(Deserialize)]
struct Head {
    custom_id: Option<String>,
}

/// What a text of JSON holds, found without reading it: what is read takes many times its size.
#[derive(Debug, PartialEq)]
struct Weight {
    /// Elements of the longest list.
    longest_list: usize,
    /// Bytes of the longest text, as it is written.
    longest_text: usize,
    /// Memory that its values take, in bytes, about.
    bytes: u64,
}

impl Weight {
    fn of(line: &[u8]) -> Self {
        // What is nested deeper is refused anyway.
        const DEPTH_MAX: usize = 128;
        // Measured: 1,400 for a message with its role and its text.
        const OBJECT_BYTES: u64 = 1024;
        const MEMBER_BYTES: u64 = 128;
        const ELEMENT_BYTES: u64 = 32;
        let (mut open, mut quoted, mut escaped) = (Vec::new(), false, false);
        let mut weight = Self { longest_list: 0, longest_text: 0, bytes: TEXT_BYTES * line.len() as u64 };
        let mut begun = 0;
        for (place, byte) in line.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => {
                    if quoted {
                        weight.longest_text = weight.longest_text.max(place - begun - 1);
                    }
                    (quoted, begun) = (!quoted, place);
                }
                _ if quoted => {}
                b'[' | b'{' if open.len() == DEPTH_MAX => return weight,
                b'[' => {
                    open.push(1);
                    weight.bytes += ELEMENT_BYTES;
                }
                // Members of an object are told apart by their names, and do not count as a list's.
                b'{' => {
                    open.push(0);
                    weight.bytes += OBJECT_BYTES;
                }
                b']' | b'}' => drop(open.pop()),
                b',' => match open.last_mut().filter(|count| **count > 0) {
                    Some(count) => {
                        *count += 1;
                        weight.longest_list = weight.longest_list.max(*count);
                        weight.bytes += ELEMENT_BYTES;
                    }
                    None => weight.bytes += MEMBER_BYTES,
                },
                _ => {}
            }
        }
        weight
    }
}

/// Whether a line of an input can be served, as a job finds when it reads it.
///
/// # Errors
/// It cannot, and why.
pub fn check_line(
    setting: &Setting,
    grammars: &mut LazyGrammars,
    number: u64,
    line: &[u8],
) -> Result<(), Refusal> {
    let item = read(setting, number, line).map_err(|(_, refusal)| refusal)?;
    match item.request.task.shape() {
        Some(shape) => grammars.constraint(setting, shape).map(drop),
        None => Ok(()),
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

/// Writes the output line of a request that was served, part by part; `created` is when the job was begun.
pub(crate) fn write_success(
    setting: &Setting,
    created: u64,
    number: u64,
    item: Item,
    part: impl FnMut(usize) -> Result<Part, Error>,
    out: &mut Appender,
) -> Result<(), Error> {
    let mut envelope = one_line(&json!({
        "id": id(number),
        "custom_id": item.custom_id,
        "response": {"status_code": 200, "request_id": request_id(number)},
    }));
    // The body is the last member of the response, which is the last of these.
    envelope.truncate(envelope.len() - 2);
    let stamp = Stamp { id: ordinal(number), created };
    let write = || -> Result<(), WriteError<Error>> {
        out.write_all(envelope.as_bytes())?;
        out.write_all(b",\"body\":")?;
        setting.write_response(item.request, part, &stamp, out)?;
        Ok(out.write_all(b"},\"error\":null}\n")?)
    };
    write().map_err(|e| match e {
        WriteError::Part(e) => e,
        WriteError::Refused(refusal) => refusal.into(),
        WriteError::Io(e) => out.failed("write results to", &e),
    })
}

/// The line of a request that failed, for the error file. `line` is there for lines without a custom_id.
pub(crate) fn failure(number: u64, custom_id: Option<&str>, refusal: &Refusal) -> Value {
    let (status, body) = (refusal.status(), refusal.body());
    let short = |id: &str| match id.char_indices().nth(ID_CHARS_MAX) {
        Some((at, _)) => format!("{}…", id.get(..at).unwrap_or_default()),
        None => id.to_owned(),
    };
    json!({
        "id": id(number),
        "custom_id": custom_id.map(short),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_list_is_found_whatever_is_around_it() {
        for (line, want) in [
            ("", 0),
            ("[1]", 0),
            ("[1,2,3]", 3),
            (r#"{"a":[1,[2,3],4],"b":2,"c":3,"d":4,"e":5}"#, 3),
            (r#"{"a":"[,,,,\"[,,,","b":[1,2]}"#, 2),
            ("]]],[1,2", 2),
            ("\\\"[1,2]", 0),
        ] {
            assert_eq!(Weight::of(line.as_bytes()).longest_list, want, "{line}");
        }
        assert_eq!(Weight::of(&[b'['; 100_000]).longest_list, 0);
        for (line, want) in
            [("", 0), ("\"", 0), ("\"\"", 0), (r#"{"ab":["c","d\"ef"]}"#, 5), (r#"["abc","#, 3)]
        {
            assert_eq!(Weight::of(line.as_bytes()).longest_text, want, "{line}");
        }
    }

    /// Lists of small objects once took thirty times their text, whatever the budget.
    #[test]
    fn what_takes_much_more_than_its_text_is_known_before_it_is_read() {
        let plain = format!("{{\"a\":\"{}\"}}", "x,[{".repeat(1000));
        assert_eq!(Weight::of(plain.as_bytes()).bytes, 1024 + 6 * plain.len() as u64);
        let objects = format!("[{}]", vec!["{\"a\":1,\"b\":2}"; 1000].join(","));
        assert!(Weight::of(objects.as_bytes()).bytes > 20 * objects.len() as u64);
    }
}
