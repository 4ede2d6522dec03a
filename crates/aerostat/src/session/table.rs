//! Which requests wait and how far those under way are, for all threads to see; and how many may wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::{Priority, RequestId};
use crate::request::{Request, UnderWay, Want};
use crate::{Error, ErrorKind};

/// How much may wait in a session. What is under way does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests.
    pub requests_max: usize,
    /// Bytes of their prompts, stop strings and lists of tokens.
    pub bytes_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { requests_max: usize::MAX, bytes_max: usize::MAX }
    }
}

/// What a request is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// It waits for room.
    Waiting,
    /// Rows of its prompt are computed; where there is no answer, that is all.
    Prompt,
    /// Its answer is generated.
    Answering,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RequestStatus {
    /// Its number.
    pub id: RequestId,
    /// When it is taken among those that wait.
    pub priority: Priority,
    /// What it is doing.
    pub state: RequestState,
    /// How many go before it, while it waits.
    pub position: Option<usize>,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Those of them that were computed by the end of the last sweep, or taken over from others.
    pub prompt_done: usize,
    /// Tokens of its answer so far.
    pub tokens: usize,
    /// Tokens of its answer at most; 0 where there is none.
    pub tokens_max: usize,
}

/// The single requests of a session that have not ended.
#[derive(Debug, Default)]
pub(super) struct Table {
    limits: QueueLimits,
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    /// By id, which grow in order of arrival.
    all: BTreeMap<u64, (RequestStatus, usize)>,
    waiting: usize,
    waiting_bytes: usize,
    /// Sequences that the last sweep carried on, those of sources too, and their positions in the cache.
    under_way: (usize, usize),
}

impl Table {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self { limits, rows: Mutex::default() }
    }

    /// A request begins to wait.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: too many wait. One is always let in where none waits.
    pub(super) fn enter(&self, id: RequestId, request: &Request, priority: Priority) -> Result<(), Error> {
        let QueueLimits { requests_max, bytes_max } = self.limits;
        let bytes = bytes(request);
        let mut rows = self.rows();
        if rows.waiting >= requests_max.max(1) {
            let message = format!("the queue is full: {} requests wait; try again later", rows.waiting);
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if rows.waiting > 0 && rows.waiting_bytes.saturating_add(bytes) > bytes_max {
            let message = format!(
                "the queue is full: {} bytes of requests wait, and {bytes} more would be over {bytes_max}; try again later",
                rows.waiting_bytes
            );
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let status = RequestStatus {
            id,
            priority,
            state: RequestState::Waiting,
            position: None,
            prompt_tokens: request.token_ids.len(),
            prompt_done: 0,
            tokens: request.resumed.len(),
            tokens_max: if request.want == Want::Generate { request.max_new_tokens } else { 0 },
        };
        rows.waiting += 1;
        rows.waiting_bytes += bytes;
        rows.all.insert(id.0, (status, bytes));
        Ok(())
    }

    /// Requests that the next sweep carries on.
    pub(super) fn under_way(&self, all: &[UnderWay]) {
        let mut rows = self.rows();
        rows.under_way = (all.len(), all.iter().map(|one| one.computed).sum());
        for one in all {
            rows.begin(one.id);
            if let Some((status, _)) = rows.all.get_mut(&one.id) {
                let prompt_done = one.computed.min(status.prompt_tokens);
                status.prompt_done = prompt_done;
                status.tokens = one.tokens;
                status.state = match prompt_done < status.prompt_tokens || status.tokens_max == 0 {
                    true => RequestState::Prompt,
                    false => RequestState::Answering,
                };
            }
        }
    }

    /// An answer has so many tokens more.
    pub(super) fn gained(&self, id: u64, tokens: usize) {
        if let Some((status, _)) = self.rows().all.get_mut(&id) {
            status.tokens += tokens;
            status.prompt_done = status.prompt_tokens;
            status.state = RequestState::Answering;
        }
    }

    /// A request has ended.
    pub(super) fn leave(&self, id: u64) {
        let mut rows = self.rows();
        rows.begin(id);
        rows.all.remove(&id);
    }

    /// Sequences that the last sweep carried on, and their positions in the cache.
    pub(super) fn carried(&self) -> (usize, usize) {
        self.rows().under_way
    }

    /// All of them, in order of arrival.
    pub(super) fn list(&self) -> Vec<RequestStatus> {
        let mut list: Vec<RequestStatus> = self.rows().all.values().map(|(status, _)| *status).collect();
        let mut waiting: Vec<usize> =
            (0..list.len()).filter(|i| list[*i].state == RequestState::Waiting).collect();
        waiting.sort_by_key(|i| list[*i].priority);
        for (position, index) in waiting.into_iter().enumerate() {
            list[index].position = Some(position);
        }
        list
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    /// A request waits no more.
    fn begin(&mut self, id: u64) {
        if let Some((status, bytes)) = self.all.get_mut(&id)
            && status.state == RequestState::Waiting
        {
            status.state = RequestState::Prompt;
            self.waiting -= 1;
            self.waiting_bytes -= *bytes;
        }
    }
}

/// What a text takes beside its letters.
const TEXT_BYTES: usize = 56;

/// What a request takes while it waits, about.
fn bytes(request: &Request) -> usize {
    let rules = &request.sampling.rules;
    let words = rules.bad_words.iter().chain(&rules.bad_words_ids).map(|word| word.len() + 8);
    let lists = [
        request.token_ids.len(),
        request.resumed.len(),
        request.sampling.logit_bias.len() * 2,
        rules.allowed_token_ids.as_ref().map_or(0, Vec::len),
        rules.suppress_tokens.len(),
        words.sum(),
    ];
    let texts: usize = request.stop.iter().map(|text| text.len() + TEXT_BYTES).sum();
    size_of::<Request>() + lists.iter().sum::<usize>() * 4 + texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tokens: usize) -> Request {
        Request { token_ids: vec![1; tokens], max_new_tokens: 4, ..Request::default() }
    }

    #[test]
    fn as_many_wait_as_may_and_those_under_way_make_room() {
        let table = Table::new(QueueLimits { requests_max: 2, bytes_max: usize::MAX });
        let enter = |id| table.enter(RequestId(id), &request(3), 0);
        enter(0).and(enter(1)).unwrap();
        assert_eq!(enter(2).unwrap_err().kind(), ErrorKind::Busy);
        table.under_way(&[UnderWay { id: 0, computed: 1, tokens: 0 }]);
        enter(3).unwrap();
        table.leave(1);
        table.leave(1);
        enter(4).unwrap();
        assert!(enter(5).is_err());
        table.gained(0, 2);
        let list = table.list();
        let told: Vec<_> =
            list.iter().map(|s| (s.id.0, s.state, s.position, s.prompt_done, s.tokens)).collect();
        let waits = |id, position| (id, RequestState::Waiting, Some(position), 0, 0);
        assert_eq!(told, [(0, RequestState::Answering, None, 3, 2), waits(3, 0), waits(4, 1)]);
    }

    #[test]
    fn bytes_that_wait_are_bounded_but_one_request_is_let_in() {
        let table = Table::new(QueueLimits { requests_max: 9, bytes_max: 2 * bytes(&request(10)) });
        let enter = |id, tokens| table.enter(RequestId(id), &request(tokens), 0);
        enter(0, 10_000).unwrap();
        assert_eq!(enter(1, 1).unwrap_err().kind(), ErrorKind::Busy);
        table.leave(0);
        enter(2, 10).and(enter(3, 10)).unwrap();
        assert!(enter(4, 1).is_err());
    }

    #[test]
    fn places_in_the_queue_go_by_priority_then_by_arrival() {
        let table = Table::default();
        for (id, priority) in [(0, 5), (1, 0), (2, 5), (3, -1)] {
            table.enter(RequestId(id), &request(1), priority).unwrap();
        }
        let places: Vec<Option<usize>> = table.list().iter().map(|status| status.position).collect();
        assert_eq!(places, [Some(2), Some(1), Some(3), Some(0)]);
    }
}
