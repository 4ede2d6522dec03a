//! Signs of life are due when nothing else was written for a while.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Rings when nothing happened for a time.
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    time: Duration,
}

impl Alarm {
    pub(crate) fn new(time: Duration) -> Self {
        Self { sleep: Box::pin(sleep(time)), time }
    }

    /// Something happened.
    pub(crate) fn reset(&mut self) {
        self.sleep.as_mut().reset(Instant::now() + self.time);
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let rings = self.sleep.as_mut().poll(context).is_ready();
        if rings {
            self.reset();
        }
        rings
    }
}
