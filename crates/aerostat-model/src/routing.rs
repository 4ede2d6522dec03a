//! Which experts the rows of a sweep use, and how much of each.

use aerostat_arch::{Groups, Routing, Score};
use aerostat_backend::{Activation, numerics};

/// What is stored for each expert of a block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lists<'a> {
    /// Added to scores for the choice alone.
    pub(crate) correction: Option<&'a [f32]>,
    /// Factors on the scores of the chosen, in the end.
    pub(crate) scales: Option<&'a [f32]>,
}

/// The experts of a sweep's rows in one block.
#[derive(Debug, Default)]
pub(crate) struct Routed {
    /// The experts that some row uses, in the order of their place on disk.
    pub(crate) experts: Vec<u32>,
    /// (place of the expert, row, factor), sorted.
    uses: Vec<(u32, u32, f32)>,
    /// Room for a row's scores and choice.
    scores: Vec<f32>,
    order: Vec<u32>,
    chosen: Vec<(u32, f32)>,
}

impl Routed {
    /// Chooses for every row; `outputs` are the router's, one per expert and row, `order` the experts' places.
    pub(crate) fn choose(&mut self, routing: &Routing, lists: Lists<'_>, order: &[u32], outputs: &[f32]) {
        self.uses.clear();
        self.experts.clear();
        let mut places = vec![0; order.len()];
        (0u32..).zip(order).for_each(|(place, expert)| places[*expert as usize] = place);
        for (row, outputs) in (0u32..).zip(outputs.chunks_exact(order.len().max(1))) {
            self.choose_row(routing, lists, outputs);
            let uses = self.chosen.iter().map(|(expert, factor)| (places[*expert as usize], row, *factor));
            self.uses.extend(uses);
        }
        self.uses.sort_unstable_by_key(|(place, row, _)| (*place, *row));
        self.experts.extend(self.uses.iter().map(|(place, ..)| order[*place as usize]));
        self.experts.dedup();
    }

    /// The rows that use the `index`-th of [`Routed::experts`], and their factors.
    pub(crate) fn rows(&self, index: usize) -> (Vec<u32>, Vec<f32>) {
        let mut uses = self.uses.chunk_by(|a, b| a.0 == b.0);
        uses.nth(index).unwrap_or_default().iter().map(|(_, row, factor)| (*row, *factor)).unzip()
    }

    fn choose_row(&mut self, routing: &Routing, lists: Lists<'_>, outputs: &[f32]) {
        if let Score::SparseMixer(jitter) = routing.score {
            self.chosen = sparse_mixer(outputs, jitter, routing.scale);
            return;
        }
        self.scores.clear();
        self.scores.extend_from_slice(outputs);
        match routing.score {
            Score::Softmax => softmax(&mut self.scores),
            Score::Sigmoid => self.scores.iter_mut().for_each(|s| *s = sigmoid(*s)),
            Score::SoftmaxOfChosen | Score::SparseMixer(_) => {}
        }
        let scores = &self.scores;
        let corrected: Vec<f32> = match lists.correction {
            Some(correction) => scores.iter().zip(correction).map(|(s, c)| s + c).collect(),
            None => scores.clone(),
        };
        let open = routing.groups.map_or(corrected.clone(), |groups| close(groups, &corrected));
        best(&open, routing.chosen, &mut self.order);
        let mut factors: Vec<f32> = self.order.iter().map(|e| scores[*e as usize]).collect();
        if routing.score == Score::SoftmaxOfChosen {
            softmax(&mut factors);
        }
        if let Some((added, least)) = routing.normalise {
            let sum = (factors.iter().fold(0.0, |sum, f| sum + f) + added).max(least);
            factors.iter_mut().for_each(|f| *f /= sum);
        }
        factors.iter_mut().for_each(|f| *f *= routing.scale);
        if let Some(scales) = lists.scales {
            factors.iter_mut().zip(&self.order).for_each(|(f, e)| *f *= scales[*e as usize]);
        }
        self.chosen.clear();
        self.chosen.extend(self.order.iter().copied().zip(factors));
    }
}

/// `1 / (1 + exp(-x))`.
pub(crate) fn sigmoid(x: f32) -> f32 {
    numerics::activate(x, Activation::Sigmoid)
}

fn softmax(x: &mut [f32]) {
    let largest = x.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    x.iter_mut().for_each(|v| *v = numerics::exp(*v - largest));
    let sum = x.iter().fold(0.0, |sum, v| sum + v);
    x.iter_mut().for_each(|v| *v /= sum);
}

/// The best two experts. Each gets its softmax among those that are close to it, the second without the first.
fn sparse_mixer(outputs: &[f32], jitter: f32, scale: f32) -> Vec<(u32, f32)> {
    let mut order = Vec::new();
    best(outputs, 2, &mut order);
    let chosen = order.iter().enumerate().map(|(place, expert)| {
        let top = outputs[*expert as usize];
        let taken = |e: usize| place == 1 && e == order[0] as usize;
        let far = |s: f32| (top - s) / s.abs().max(top) > 2.0 * jitter;
        let weights = outputs.iter().enumerate().filter(|(e, s)| !taken(*e) && !far(**s));
        let sum = weights.fold(0.0, |sum, (_, s)| sum + numerics::exp(s - top));
        (*expert, scale / sum)
    });
    chosen.collect()
}

/// Takes the experts of closed groups out of the choice.
fn close(groups: Groups, scores: &[f32]) -> Vec<f32> {
    let size = (scores.len() / groups.count.max(1)).max(1);
    let mut order = Vec::new();
    let worth = |group: &[f32]| {
        let mut order = Vec::new();
        best(group, groups.best, &mut order);
        order.iter().fold(0.0, |sum, e| sum + group[*e as usize])
    };
    let worths: Vec<f32> = scores.chunks(size).map(worth).collect();
    best(&worths, groups.open, &mut order);
    let closed = if groups.closed_score_zero { 0.0 } else { f32::NEG_INFINITY };
    let open = |i: usize| order.contains(&((i / size) as u32));
    scores.iter().enumerate().map(|(i, s)| if open(i) { *s } else { closed }).collect()
}

/// The indices of the `n` largest values, largest first; of equal ones the first.
fn best(values: &[f32], n: usize, out: &mut Vec<u32>) {
    out.clear();
    out.extend(0..values.len() as u32);
    let larger = |a: &u32, b: &u32| values[*b as usize].total_cmp(&values[*a as usize]).then(a.cmp(b));
    if n < out.len() {
        out.select_nth_unstable_by(n, larger);
        out.truncate(n);
    }
    out.sort_unstable_by(larger);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTING: Routing = Routing {
        chosen: 2,
        score: Score::SoftmaxOfChosen,
        correction: None,
        groups: None,
        normalise: None,
        scale: 1.0,
        expert_scales: None,
        at_input: false,
    };

    fn choose(routing: &Routing, correction: Option<&[f32]>, outputs: &[f32]) -> Vec<(u32, f32)> {
        let mut routed = Routed::default();
        routed.choose_row(routing, Lists { correction, scales: None }, outputs);
        routed.chosen
    }

    #[test]
    fn the_best_are_chosen_and_of_equals_the_first() {
        let close = |a: &[(u32, f32)], b: &[(u32, f32)]| {
            assert!(a.iter().zip(b).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6), "{a:?} {b:?}");
        };
        close(&choose(&ROUTING, None, &[1.0, 3.0, 3.0, 3.0]), &[(1, 0.5), (2, 0.5)]);
        let sigmoid = Routing { score: Score::Sigmoid, scale: 2.0, ..ROUTING };
        close(&choose(&sigmoid, None, &[0.0, -1e9, 1e9]), &[(2, 2.0), (0, 1.0)]);
        // The correction counts in the choice alone.
        close(&choose(&sigmoid, Some(&[0.0, 9.0, 0.0]), &[0.0, -1e9, 1e9]), &[(1, 0.0), (2, 2.0)]);
        let normalised = Routing { score: Score::Softmax, normalise: Some((0.0, 0.0)), ..ROUTING };
        close(&choose(&normalised, None, &[0.0, 0.0, -1e9]), &[(0, 0.5), (1, 0.5)]);
        // Factors of experts come in the end.
        let mut routed = Routed::default();
        let lists = Lists { correction: None, scales: Some(&[3.0, 2.0, 7.0]) };
        routed.choose_row(&normalised, lists, &[0.0, 0.0, -1e9]);
        close(&routed.chosen, &[(0, 1.5), (1, 1.0)]);
    }

    #[test]
    fn the_sparse_mixer_weighs_each_of_two_among_those_close_to_it() {
        let routing = Routing { score: Score::SparseMixer(0.01), ..ROUTING };
        // Nobody is within 2 % of the first; the third is of the second.
        let chosen = choose(&routing, None, &[1.0, 2.0, 1.01, -5.0]);
        let second = 1.0 / (1.0 + (-0.01f32).exp());
        assert_eq!((chosen[0], chosen[1].0), ((1, 1.0), 2));
        assert!((chosen[1].1 - second).abs() < 1e-6);
        // Of equals the first; it does not count beside the second.
        let chosen = choose(&routing, None, &[2.0, 2.0, -1.0]);
        assert_eq!(chosen.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 1]);
        assert!((chosen[0].1 - 0.5).abs() < 1e-6 && chosen[1].1 == 1.0);
    }

    #[test]
    fn groups_open_by_their_best() {
        let outputs = [5.0, 0.0, 3.0, 3.0, 4.0, 1.0];
        for (best, experts) in [(1, [0, 1]), (2, [2, 3])] {
            let groups = Some(Groups { count: 3, open: 1, best, closed_score_zero: false });
            let chosen = choose(&Routing { groups, ..ROUTING }, None, &outputs);
            assert_eq!(chosen.iter().map(|c| c.0).collect::<Vec<_>>(), experts);
        }
    }

    #[test]
    fn rows_are_gathered_by_expert_in_the_order_of_the_disk() {
        let mut routed = Routed::default();
        let outputs = [9.0, 8.0, 0.0, 0.0, 9.0, 8.0, 9.0, 0.0, 8.0];
        routed.choose(&ROUTING, Lists::default(), &[2, 0, 1], &outputs);
        assert_eq!(routed.experts, [2, 0, 1]);
        assert_eq!([0, 1, 2].map(|i| routed.rows(i).0), [vec![1, 2], vec![0, 2], vec![0, 1]]);
    }
}
