//! What clients hold together: places and bytes, given out up to a bound and given back by dropping.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::problem::Problem;

/// Gives out bytes up to a bound.
#[derive(Debug)]
pub(crate) struct Holder {
    used: AtomicUsize,
    max: usize,
    /// What is full when nothing is left.
    what: &'static str,
}

/// Bytes or places that are held until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    holder: Arc<Holder>,
    count: usize,
}

impl Holder {
    pub(crate) fn new(max: usize, what: &'static str) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max, what })
    }

    /// Takes so many.
    pub(crate) fn hold(self: &Arc<Self>, count: usize) -> Result<Held, Problem> {
        let mut held = Held { holder: Arc::clone(self), count: 0 };
        held.grow(count)?;
        Ok(held)
    }

    /// How many are taken.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }
}

impl Held {
    /// Takes more.
    pub(crate) fn grow(&mut self, count: usize) -> Result<(), Problem> {
        let Holder { used, max, what } = &*self.holder;
        let fits = |used: usize| used.checked_add(count).filter(|sum| sum <= max);
        if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(Problem::busy(format!("{what}; try again later")).closing());
        }
        self.count += count;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holder.used.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_there_again() {
        let holder = Holder::new(10, "full");
        let mut first = holder.hold(6).unwrap();
        assert_eq!(holder.hold(5).unwrap_err().status().as_u16(), 429);
        assert!(first.grow(usize::MAX).is_err());
        first.grow(4).unwrap();
        assert_eq!(holder.used(), 10);
        drop(first);
        assert_eq!(holder.used(), 0);
    }
}
