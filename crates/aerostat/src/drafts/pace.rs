//! What rows really cost: learnt from the sweeps that were made, since a plan cannot know who else is at work.

/// What earlier sweeps count for when another was made.
const MEMORY: f64 = 0.97;
/// Sweeps that must have been made, and how much their rows must differ (in rows, squared), before they are believed.
const SWEEPS_MIN: f64 = 5.0;
const SPREAD_MIN: f64 = 2.0;

/// A line through the seconds of the latest sweeps by their rows.
#[derive(Debug, Default)]
pub(super) struct Pace {
    count: f64,
    rows: f64,
    rows_squared: f64,
    seconds: f64,
    product: f64,
}

impl Pace {
    /// A sweep of so many rows took so long.
    pub(super) fn learn(&mut self, rows: usize, seconds: f64) {
        let rows = rows as f64;
        for (sum, value) in [
            (&mut self.count, 1.0),
            (&mut self.rows, rows),
            (&mut self.rows_squared, rows * rows),
            (&mut self.seconds, seconds),
            (&mut self.product, rows * seconds),
        ] {
            *sum = *sum * MEMORY + value;
        }
    }

    /// Seconds of a sweep, and of each row more, from `planned`, which tells both for this number of rows: corrected by what
    /// sweeps really took.
    pub(super) fn correct(&self, rows: usize, planned: (f64, f64)) -> (f64, f64) {
        let (count, mean) = (self.count, self.seconds / self.count);
        if count < 1.0 {
            return planned;
        }
        let (middle, squared) = (self.rows / count, self.rows_squared / count);
        let spread = squared - middle * middle;
        if count < SWEEPS_MIN || spread < SPREAD_MIN {
            // How much longer all of it takes.
            let factor = mean / (planned.0 + planned.1 * (middle - rows as f64)).max(f64::MIN_POSITIVE);
            return (planned.0 * factor, planned.1 * factor);
        }
        let each = ((self.product / count - middle * mean) / spread).max(0.0);
        ((mean + each * (rows as f64 - middle)).max(f64::MIN_POSITIVE), each)
    }
}

/// How much a sweep counts in what guesses and other rows are taken to have in common.
const LATEST: f64 = 0.1;

/// The share of its experts that a guess has in common with the rows before it.
#[derive(Debug)]
pub(super) struct Common(f64);

impl Default for Common {
    /// About what texts have in common from one token to the next.
    fn default() -> Self {
        Self(0.3)
    }
}

impl Common {
    /// A sweep of some rows and guesses used as many experts as so many rows that have nothing in common.
    pub(super) fn learn(&mut self, rows: usize, guesses: usize, independent: f64) {
        if guesses > 0 {
            let found = 1.0 - (independent - rows as f64) / guesses as f64;
            self.0 += (found.clamp(0.0, 1.0) - self.0) * LATEST;
        }
    }

    pub(super) fn share(&self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guesses_have_in_common_is_learnt_from_the_experts_that_sweeps_use() {
        let mut common = Common::default();
        // Eight guesses after one row, of which each brings half as many experts as a stranger.
        (0..100).for_each(|_| common.learn(1, 8, 5.0));
        assert!((common.share() - 0.5).abs() < 1e-3);
        common.learn(1, 0, 1.0);
        (0..100).for_each(|_| common.learn(2, 4, 1.5));
        assert!(common.share() > 0.99 && common.share() <= 1.0);
    }

    #[test]
    fn what_sweeps_took_corrects_the_plan() {
        let mut pace = Pace::default();
        assert_eq!(pace.correct(1, (0.5, 0.1)), (0.5, 0.1));
        // All alike: everything takes twice as long.
        (0..20).for_each(|_| pace.learn(1, 1.0));
        let (sweep, row) = pace.correct(1, (0.5, 0.1));
        assert!((sweep - 1.0).abs() < 1e-9 && (row - 0.2).abs() < 1e-9);
        // Sweeps of many rows tell what a row takes.
        (0..40).for_each(|i| pace.learn(1 + i % 20, 1.0 + 0.01 * (i % 20) as f64));
        let (sweep, row) = pace.correct(1, (0.5, 0.1));
        assert!((sweep - 1.0).abs() < 1e-6 && (row - 0.01).abs() < 1e-6, "{sweep} {row}");
    }
}
