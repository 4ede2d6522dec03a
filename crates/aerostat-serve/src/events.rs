//! `/v1/aerostat/events`: how the server stands, told anew when it has changed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Response;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::alarm::Alarm;
use crate::answer::event_stream;
use crate::app::App;
use crate::body::{Body, Broken, Live};
use crate::info;
use crate::problem::Problem;
use crate::progress;
use crate::text::line;

/// Requests that are told of; all are counted.
const ROWS_MAX: usize = 100;

/// Tells what changes, twice a second at most.
struct Events {
    app: Arc<App>,
    look: Alarm,
    sign: Alarm,
    told: [String; 2],
    ready: VecDeque<Bytes>,
    begun: bool,
}

/// GET `/v1/aerostat/events`.
pub(crate) fn events(app: &Arc<App>) -> Result<Response<Body>, Problem> {
    app.model()?;
    let limits = &app.config.limits;
    let (look, sign) = (Alarm::new(limits.look_time), Alarm::new(limits.sign_time));
    let live = Events {
        app: Arc::clone(app),
        look,
        sign,
        told: Default::default(),
        ready: VecDeque::new(),
        begun: false,
    };
    Ok(event_stream(live))
}

impl Events {
    fn look(&mut self) -> Result<(), Problem> {
        let (rows, total) = progress::rows(&self.app, "", (0, ROWS_MAX));
        // Times change by themselves.
        let still = |mut row: Value| {
            if let Some(row) = row.as_object_mut() {
                row.remove("seconds");
            }
            row
        };
        let data: Vec<Value> = rows.into_iter().map(still).collect();
        let requests = json!({"type": "requests", "data": data, "total": total});
        let mut status = info::status_of(&self.app)?;
        status["type"] = "status".into();
        for (told, value) in self.told.iter_mut().zip([status, requests]) {
            let text = line(&value);
            if *told != text {
                self.ready.push_back(format!("data: {text}\n\n").into());
                *told = text;
            }
        }
        Ok(())
    }
}

impl Live for Events {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.sign.reset();
                return Poll::Ready(Some(Ok(bytes)));
            }
            if !self.begun || self.look.poll(context) {
                self.begun = true;
                if self.look().is_err() {
                    return Poll::Ready(None);
                }
            } else if self.sign.poll(context) {
                self.ready.push_back(Bytes::from_static(b":\n"));
            } else {
                return Poll::Pending;
            }
        }
    }
}
