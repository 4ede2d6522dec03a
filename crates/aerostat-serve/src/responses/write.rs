//! The object that `/v1/responses` answers with, and the events by which it comes to be.

use aerostat_openai::{Finish, Piece, Splitter};
use serde_json::{Map, Value, json};

use crate::ids;
use crate::problem::Problem;

/// Makes a response of an answer, piece by piece, and tells of each.
pub(crate) struct Writer {
    /// The response as it is.
    pub(crate) object: Value,
    splitter: Option<Splitter>,
    /// The same at the beginning.
    fresh: Option<Splitter>,
    /// All text that was given.
    said: String,
    open: Option<Open>,
    /// The number of the next event.
    number: u64,
    /// Tokens of thoughts.
    thinking: usize,
}

/// The item of the output that is being made.
struct Open {
    kind: Kind,
    id: String,
    text: String,
    /// What a call has beside its text.
    call: (String, String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thoughts,
    Message,
    Call,
}

impl Writer {
    pub(crate) fn new(object: Value, splitter: Option<Splitter>) -> Self {
        let (fresh, said) = (splitter.clone(), String::new());
        Self { object, splitter, fresh, said, open: None, number: 0, thinking: 0 }
    }

    /// An event with more members.
    fn event(&mut self, kind: &str, more: Value) -> Value {
        let mut event = Map::from_iter([
            ("type".to_owned(), kind.into()),
            ("sequence_number".to_owned(), self.number.into()),
        ]);
        if let Value::Object(more) = more {
            event.extend(more);
        }
        self.number += 1;
        event.into()
    }

    /// An event with the whole response.
    fn whole(&mut self, kind: &str) -> Value {
        let response = self.object.clone();
        self.event(kind, json!({"response": response}))
    }

    /// It has begun.
    pub(crate) fn begin(&mut self) -> Vec<Value> {
        let created = self.whole("response.created");
        self.object["status"] = "in_progress".into();
        vec![created, self.whole("response.in_progress")]
    }

    /// A sign of life.
    pub(crate) fn sign(&mut self) -> Vec<Value> {
        vec![self.whole("response.in_progress")]
    }

    /// More text.
    pub(crate) fn text(&mut self, text: &str) -> Vec<Value> {
        self.said.push_str(text);
        let pieces = match &mut self.splitter {
            Some(splitter) => splitter.push(text),
            None if text.is_empty() => Vec::new(),
            None => vec![Piece::Content(text.to_owned())],
        };
        self.pieces(pieces)
    }

    /// Makes the output anew if all of the text is another than what was given piece by piece: an answer that is taken up
    /// again may begin in the middle of a character or of a stop string.
    pub(crate) fn mend(&mut self, whole: &str) {
        if self.said != whole {
            self.object["output"] = json!([]);
            (self.open, self.splitter) = (None, self.fresh.clone());
            self.said.clear();
            self.text(whole);
        }
    }

    /// More tokens, whose text came before them.
    pub(crate) fn tokens(&mut self, count: usize) {
        if self.open.as_ref().is_some_and(|open| open.kind == Kind::Thoughts) {
            self.thinking += count;
        }
    }

    fn pieces(&mut self, pieces: Vec<Piece>) -> Vec<Value> {
        let mut events = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Thoughts(text) => self.add(Kind::Thoughts, &text, &mut events),
                Piece::Content(text) => self.add(Kind::Message, &text, &mut events),
                Piece::Call(_, name) => {
                    self.close("completed", &mut events);
                    self.open_item(Kind::Call, (format!("call_{}", ids::hex()), name), &mut events);
                }
                Piece::Arguments(_, text) => self.add(Kind::Call, &text, &mut events),
            }
        }
        events
    }

    fn add(&mut self, kind: Kind, text: &str, events: &mut Vec<Value>) {
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            self.close("completed", events);
            self.open_item(kind, Default::default(), events);
        }
        let output_index = self.items();
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let id = open.id.clone();
        let (name, more) = match kind {
            Kind::Thoughts => ("response.reasoning_text.delta", json!({"content_index": 0})),
            Kind::Message => ("response.output_text.delta", json!({"content_index": 0, "logprobs": []})),
            Kind::Call => ("response.function_call_arguments.delta", json!({})),
        };
        let mut event = self.event(name, json!({"item_id": id, "output_index": output_index, "delta": text}));
        merge(&mut event, more);
        events.push(event);
    }

    fn items(&self) -> usize {
        self.object["output"].as_array().map_or(0, Vec::len)
    }

    fn open_item(&mut self, kind: Kind, call: (String, String), events: &mut Vec<Value>) {
        let prefix = match kind {
            Kind::Thoughts => "rs",
            Kind::Message => "msg",
            Kind::Call => "fc",
        };
        let open = Open { kind, id: format!("{prefix}_{}", ids::hex()), text: String::new(), call };
        let (id, output_index) = (open.id.clone(), self.items());
        let mut item = open.item("in_progress");
        if kind != Kind::Call {
            item["content"] = json!([]);
        }
        events.push(
            self.event("response.output_item.added", json!({"output_index": output_index, "item": item})),
        );
        if let Some(part) = open.part() {
            let more = json!({"item_id": id, "output_index": output_index, "content_index": 0, "part": part});
            events.push(self.event("response.content_part.added", more));
        }
        self.open = Some(open);
    }

    fn close(&mut self, status: &str, events: &mut Vec<Value>) {
        let Some(open) = self.open.take() else { return };
        let place = json!({"item_id": open.id, "output_index": self.items()});
        let (name, more) = match open.kind {
            Kind::Thoughts => {
                ("response.reasoning_text.done", json!({"content_index": 0, "text": open.text}))
            }
            Kind::Message => {
                ("response.output_text.done", json!({"content_index": 0, "text": open.text, "logprobs": []}))
            }
            Kind::Call => (
                "response.function_call_arguments.done",
                json!({"arguments": open.text, "name": open.call.1}),
            ),
        };
        let mut done = self.event(name, place.clone());
        merge(&mut done, more);
        events.push(done);
        if let Some(part) = open.part() {
            let mut done = self.event("response.content_part.done", place);
            merge(&mut done, json!({"content_index": 0, "part": part}));
            events.push(done);
        }
        let item = open.item(status);
        let more = json!({"output_index": self.items(), "item": item});
        events.push(self.event("response.output_item.done", more));
        if let Some(output) = self.object["output"].as_array_mut() {
            output.push(item);
        }
    }

    /// It has ended: with all there is to say, or where it was cut off.
    pub(crate) fn finish(&mut self, finish: Finish, (prompt, answer): (usize, usize)) -> Vec<Value> {
        let held = self.splitter.as_mut().map(Splitter::finish).unwrap_or_default();
        let mut events = self.pieces(held);
        if self.open.is_none() && self.items() == 0 {
            self.open_item(Kind::Message, Default::default(), &mut events);
        }
        let status = if finish == Finish::Length { "incomplete" } else { "completed" };
        self.close(status, &mut events);
        self.object["status"] = status.into();
        if finish == Finish::Length {
            self.object["incomplete_details"] = json!({"reason": "max_output_tokens"});
        } else {
            self.object["completed_at"] = ids::now().into();
        }
        self.object["usage"] = json!({
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answer,
            "output_tokens_details": {"reasoning_tokens": self.thinking},
            "total_tokens": prompt + answer,
        });
        events.push(self.whole(&format!("response.{status}")));
        events
    }

    /// It failed.
    pub(crate) fn fail(&mut self, problem: &Problem) -> Vec<Value> {
        let error = &problem.body()["error"];
        self.object["status"] = "failed".into();
        self.object["error"] = json!({"code": "server_error", "message": error["message"]});
        vec![self.whole("response.failed")]
    }

    /// Somebody cancelled it.
    pub(crate) fn cancel(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        self.close("incomplete", &mut events);
        self.object["status"] = "cancelled".into();
        events.push(self.whole("response.cancelled"));
        events
    }
}

impl Open {
    fn part(&self) -> Option<Value> {
        match self.kind {
            Kind::Thoughts => Some(json!({"type": "reasoning_text", "text": self.text})),
            Kind::Message => {
                Some(json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}))
            }
            Kind::Call => None,
        }
    }

    fn item(&self, status: &str) -> Value {
        match self.kind {
            Kind::Thoughts => {
                json!({"id": self.id, "type": "reasoning", "summary": [], "content": [self.part()], "status": status})
            }
            Kind::Message => json!({"id": self.id, "type": "message", "role": "assistant", "status": status,
                "content": [self.part()]}),
            Kind::Call => {
                json!({"id": self.id, "type": "function_call", "call_id": self.call.0, "name": self.call.1,
                "arguments": self.text, "status": status})
            }
        }
    }
}

fn merge(event: &mut Value, more: Value) {
    if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
        event.extend(more);
    }
}
