//! A list of requests as a source of a session's work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::vec;

use aerostat::{Completion, Error, ErrorKind, Gained, Outcome, Request, TokenLogprobs, Work};

/// What a call is told.
pub(crate) enum Told {
    /// New text of an answer; of single requests only.
    Text(u64, String),
    /// New tokens of answers.
    Tokens(Vec<New>),
    /// A request has its result.
    Finished(u64, Outcome),
    /// Nothing more will come; an error if not all of it did.
    Ended(Result<(), Error>),
}

/// New tokens of a request's answer.
pub(crate) type New = (u64, Vec<u32>, Vec<TokenLogprobs>);

/// A list of requests. What becomes of them is told on a channel.
pub(crate) struct Feed {
    requests: vec::IntoIter<Request>,
    tokens_left: u64,
    told: Sender<Told>,
    cancel: Arc<AtomicBool>,
}

impl Feed {
    /// Of these requests; `cancel` ends them at the end of a sweep.
    pub(crate) fn new(requests: Vec<Request>, told: Sender<Told>, cancel: Arc<AtomicBool>) -> Self {
        let tokens_left = requests.iter().map(|r| r.max_new_tokens as u64).sum();
        Self { requests: requests.into_iter(), tokens_left, told, cancel }
    }

    /// Nobody listens any more: then nobody wants to know.
    fn tell(&self, told: Told) {
        let _ = self.told.send(told);
    }

    fn go_on(&self) -> Result<(), Error> {
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Interrupted, "cancelled")),
            false => Ok(()),
        }
    }
}

impl Work for Feed {
    fn next(&mut self) -> Result<Option<Request>, Error> {
        self.go_on()?;
        let next = self.requests.next();
        self.tokens_left -= next.as_ref().map_or(0, |request| request.max_new_tokens as u64);
        Ok(next)
    }

    fn swept(&mut self, gained: &[Gained<'_>]) -> Result<(), Error> {
        let new = |one: &Gained<'_>| (one.id, one.tokens.to_vec(), one.logprobs.to_vec());
        // Of a whole sweep at once: each time that something is told wakes whoever waits.
        self.tell(Told::Tokens(gained.iter().map(new).collect()));
        Ok(())
    }

    fn finished(&mut self, id: u64, outcome: Outcome) -> Result<(), Error> {
        self.tell(Told::Finished(id, outcome));
        Ok(())
    }

    fn sweep_over(&mut self) -> Result<(), Error> {
        self.go_on()
    }

    fn unfinished(&mut self, id: u64, so_far: Completion) -> Result<(), Error> {
        self.tell(Told::Finished(id, Outcome::Completion(so_far)));
        Ok(())
    }

    fn tokens_left(&self) -> u64 {
        self.tokens_left
    }
}
