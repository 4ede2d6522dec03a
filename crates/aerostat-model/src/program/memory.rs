//! Which activations share memory.

use super::{Buffer, Content, Height, Slot};

/// From which op to which each buffer is in use.
#[derive(Default)]
pub(super) struct Lifetimes {
    /// By buffer: the first and the last op that names it.
    spans: Vec<Option<(usize, usize)>>,
    /// Ops so far.
    ops: usize,
}

impl Lifetimes {
    /// The next op names these buffers.
    pub(super) fn touch(&mut self, buffers: impl Iterator<Item = usize>) {
        for buffer in buffers {
            if self.spans.len() <= buffer {
                self.spans.resize(buffer + 1, None);
            }
            let first = self.spans[buffer].map_or(self.ops, |(first, _)| first);
            self.spans[buffer] = Some((first, self.ops));
        }
        self.ops += 1;
    }

    /// The number of the next op.
    pub(super) fn now(&self) -> usize {
        self.ops
    }

    /// The ops since `begin` run again and again: what they read and did not make stays until their end.
    pub(super) fn end_loop(&mut self, begin: usize) {
        for (first, last) in self.spans.iter_mut().flatten() {
            if *first < begin && *last >= begin {
                *last = self.ops;
            }
        }
    }
}

/// Gives each activation a slot. The widest come first, each into the first slot that is free while it is in use.
pub(super) fn share(buffers: &mut [Buffer], lifetimes: &Lifetimes) -> Vec<Slot> {
    let mut slots: Vec<(Slot, Vec<(usize, usize)>)> = Vec::new();
    let span = |buffer: usize| lifetimes.spans.get(buffer).copied().flatten();
    let is_activation = |buffer: &Buffer| matches!(buffer.content, Content::Activation);
    let mut order: Vec<usize> = (0..buffers.len()).filter(|i| is_activation(&buffers[*i])).collect();
    order.sort_by_key(|i| std::cmp::Reverse(buffers[*i].cols));
    for i in order {
        let Some((first, last)) = span(i) else { continue };
        let height = match buffers[i].height {
            Height::LogitRows => Height::LogitRows,
            _ => Height::Rows,
        };
        let is_free = |spans: &[(usize, usize)]| spans.iter().all(|(from, to)| last < *from || *to < first);
        let found = slots.iter().position(|(slot, spans)| slot.height == height && is_free(spans));
        let slot = found.unwrap_or_else(|| {
            slots.push((Slot { height, cols: buffers[i].cols }, Vec::new()));
            slots.len() - 1
        });
        slots[slot].1.push((first, last));
        buffers[i].slot = Some(slot);
    }
    slots.into_iter().map(|(slot, _)| slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activations(cols: &[usize]) -> Vec<Buffer> {
        let buffer = |cols: &usize| Buffer {
            name: "",
            height: Height::Rows,
            cols: *cols,
            content: Content::Activation,
            slot: None,
        };
        cols.iter().map(buffer).collect()
    }

    #[test]
    fn buffers_whose_lifetimes_do_not_meet_share_memory() {
        let mut buffers = activations(&[8, 32, 16, 8]);
        let mut lifetimes = Lifetimes::default();
        // 0 becomes 1, 1 becomes 2, 2 and 0 become 3.
        for op in [&[0usize, 1][..], &[1, 2], &[2, 0, 3]] {
            lifetimes.touch(op.iter().copied());
        }
        let slots = share(&mut buffers, &lifetimes);
        assert_eq!(slots.iter().map(|slot| slot.cols).collect::<Vec<_>>(), [32, 16, 8]);
        assert_eq!(buffers[3].slot, buffers[1].slot, "the widest is free again");
    }

    #[test]
    fn what_a_loop_reads_stays_until_it_ends() {
        let mut buffers = activations(&[8, 8, 8]);
        let mut lifetimes = Lifetimes::default();
        lifetimes.touch([0].into_iter());
        let begin = lifetimes.now();
        lifetimes.touch([0, 1].into_iter());
        lifetimes.touch([2].into_iter());
        lifetimes.end_loop(begin);
        share(&mut buffers, &lifetimes);
        assert_ne!(buffers[0].slot, buffers[2].slot, "the next turn reads it again");
        assert_eq!(buffers[1].slot, buffers[2].slot);
    }
}
