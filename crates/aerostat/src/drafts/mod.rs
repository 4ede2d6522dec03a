//! Tokens that may follow, computed in rows that a sweep has to spare, so that one sweep brings several.
//!
//! Between two sweeps every answer whose next token is about to be chosen gets a tree of guesses: each a row of its own, which
//! sees the text, the guesses on its path, and nothing of the others ([`Branch`]). After the sweep the answer takes the
//! logits of its last token, chooses as always, and steps down where a guess is what it chose. Whatever was guessed, tokens
//! are those that would have been chosen one by one, since a token depends on logits, seed and place alone.
//!
//! Keys and values of guesses lie in slots of the cache that no sequence has; those of guesses that were right are copied to
//! the pages of their sequence. Guesses displace nobody: they take rows, and rows of logits, that are left.
//!
//! A recurrent state cannot leave out a guess that was wrong: it is that of all positions. Where sequences have one, only the
//! last of a sweep is guessed, by a chain without branches, whose rows go on from its own. Its state is copied before; after a
//! wrong guess it has the copy again, and the rows since are computed again with the next sweep, as rows of a prompt are.

mod chance;
mod choose;
mod history;
mod model;
mod pace;
mod successors;

use std::collections::{BinaryHeap, HashMap};

use aerostat_backend::{Branch, RowPlace, StateRow};
use aerostat_model::{Limits, Pages};
use aerostat_plan::Guesses;

use crate::Error;
use crate::observe::Observer;
use crate::rows::Rows;
use crate::sampler::{Sampler, has_nan};
use crate::sequence::Sequence;
use chance::{Chances, Kind};
use history::{Continuation, History, MATCH_MAX};
use pace::{Common, Pace};
use successors::Successors;

pub use choose::best_draft;
pub(crate) use choose::cost;
pub(crate) use model::SmallModel;

/// Guesses of a sweep at most: about two thirds of the rows that usual disks leave to usual processors.
pub(crate) const ROWS_MAX: usize = 96;
/// The same where a sequence has a recurrent state.
pub(crate) const CHAIN_MAX: usize = 16;
/// Where one has, its rows of a sweep must be so few that it is guessed: they are computed again after a wrong guess.
const AGAIN_MAX: usize = 16;
/// Guesses after each other at most.
const DEPTH_MAX: usize = 48;
/// Guesses for one place at most.
const WIDTH_MAX: usize = 8;
/// What is less likely costs more, in attention that the plan does not count, than it brings.
const CHANCE_MIN: f32 = 0.01;
/// Rows by which the plan's cost of a row is told.
const FEW: usize = 8;
/// Guesses of a round, where a small model goes on from all of them at once: those that are nearly as likely as the best.
const ROUND: usize = 16;
const LIKELY: f32 = 0.25;
/// What a guess that is right brings by those that follow it, in tokens, where nothing is known of them.
const WORTH: f64 = 0.6;
/// Tokens of finished texts that are remembered: those of the latest, at least.
const FINISHED_TOKENS: usize = 16 << 10;

/// Bytes that guessing takes beside rows, at most, and for each position of the sequences under way.
pub(crate) const FIXED_BYTES: u64 = Successors::BYTES + 2 * FINISHED_TOKENS as u64 * History::TOKEN_BYTES;
pub(crate) const POSITION_BYTES: u64 = History::TOKEN_BYTES;

/// Where guesses come from, and those of the sweep at hand.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    /// Slots of the cache that are theirs: the first, and how many.
    slots: (u32, usize),
    own: HashMap<u64, History>,
    /// The latest finished texts, and those before.
    finished: [History; 2],
    successors: Successors,
    chances: Chances,
    pace: Pace,
    /// Of models with experts.
    common: Option<Common>,
    /// Nothing is guessed.
    off: bool,
    model: Option<Box<SmallModel>>,
    trees: Vec<Tree>,
    /// Where the recurrent state of the only sequence that is guessed was copied to.
    copy: Option<u32>,
    /// Why the small model guesses no more; to be told once.
    pub(crate) trouble: Option<Error>,
}

/// The guesses for one sequence.
#[derive(Debug)]
struct Tree {
    /// Among the active sequences.
    index: usize,
    /// The position of its last token, and that token's row of logits.
    root: usize,
    logits: usize,
    depth_max: usize,
    /// Other answers to the same prompt.
    siblings: Vec<u64>,
    /// Each after the one that it follows.
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The one before it in its tree; `None`: the sequence's last token.
    before: Option<usize>,
    token: u32,
    kind: Kind,
    /// 1 for what follows the last token.
    depth: usize,
    slot: u32,
    /// Its row of logits.
    logits: usize,
}

/// A place of a tree that was just reached, and may be gone on from.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    tree: usize,
    /// `None`: the sequence's last token.
    node: Option<usize>,
    /// That all of its path is right.
    chance: f32,
}

impl Fresh {
    /// The token that was guessed; the greatest there can be where none was.
    fn token(&self, trees: &[Tree]) -> usize {
        self.node.map_or(usize::MAX, |node| trees[self.tree].nodes[node].token as usize)
    }
}

/// A guess that is not made yet.
#[derive(Debug)]
struct Candidate {
    /// That all of its path is right.
    chance: f32,
    tree: usize,
    node: Node,
}

/// What a sweep costs, in seconds: rows, those with logits, and guesses beside them.
pub(crate) type Seconds<'a> = &'a dyn Fn(usize, usize, usize) -> f64;

/// A guess that was right: where its key and value are, and the position that they are of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right {
    pub(crate) slot: u32,
    pub(crate) position: usize,
}

impl Drafts {
    /// Guesses whose keys and values lie in `count` slots from `first`.
    pub(crate) fn new(first: usize, count: usize, has_experts: bool, model: Option<SmallModel>) -> Self {
        let common = has_experts.then(Common::default);
        Self { slots: (first as u32, count), model: model.map(Box::new), common, ..Self::default() }
    }

    /// The share of its experts that a guess has in common with the rows before it; 0 where there are none.
    pub(crate) fn common(&self) -> f64 {
        self.common.as_ref().map_or(0.0, Common::share)
    }

    /// Forgets texts and what the model expected; guesses from here on, or not.
    pub(crate) fn begin_anew(&mut self, on: bool) {
        self.off = !on;
        self.own.clear();
        self.finished = Default::default();
        self.successors = Successors::default();
    }

    /// Adds guesses to the rows of a sweep, as many as are worth what they cost. Where sequences have recurrent states, one of
    /// `pages` must be left for a copy.
    pub(crate) fn draft(
        &mut self,
        active: &[Sequence<'_>],
        rows: &mut Rows,
        (limits, pages): (Limits, &Pages),
        seconds: Seconds<'_>,
    ) {
        self.trees.clear();
        let spare = limits.rows_max.saturating_sub(rows.tokens.len());
        let spare = spare.min(limits.logit_rows_max.saturating_sub(rows.logit_rows.len())).min(self.slots.1);
        if spare == 0 || self.off || pages.states_available() == 0 {
            return;
        }
        self.chances.fade();
        self.own.retain(|id, _| active.iter().any(|s| s.id == *id));
        let chained = !rows.states.is_empty();
        for (logits, &(index, root)) in rows.owners.iter().enumerate() {
            let sequence = &active[index];
            let depth_max = sequence.tokens_ahead().min(if chained { CHAIN_MAX } else { DEPTH_MAX });
            let may_go_on = !chained || rows.is_last(logits) && rows.of_last_state() <= AGAIN_MAX;
            if root + 1 == sequence.tokens.len() && depth_max > 0 && may_go_on {
                self.own.entry(sequence.id).or_default().extend(&sequence.tokens);
                let siblings = active.iter().filter(|other| other.is_sibling(sequence));
                let siblings = siblings.map(|other| other.id).collect();
                self.trees.push(Tree { index, root, logits, depth_max, siblings, nodes: Vec::new() });
            }
        }
        self.grow(active, (rows, spare), seconds);
        for tree in &mut self.trees {
            place(tree, &active[tree.index], rows);
        }
        rows.guesses = Guesses { count: self.made(), common: self.common() };
    }

    /// Makes the likeliest guesses first, until the next would cost more than it brings.
    fn grow(&mut self, active: &[Sequence<'_>], (rows, spare): (&Rows, usize), seconds: Seconds<'_>) {
        let (computed, logits) = (rows.tokens.len(), rows.logit_rows.len());
        let planned = |guesses: usize| seconds(computed, logits, guesses);
        // What a few rows more take, as the plan has it.
        let each = (planned(FEW) - planned(0)) / FEW as f64;
        let (sweep, each) = self.pace.correct(computed, (planned(0), each));
        // Of experts the first guesses bring most, so that the next one is looked at by itself.
        let mixture = self.common.is_some().then_some(sweep / planned(0).max(f64::MIN_POSITIVE));
        let next = |made: usize| mixture.map_or(each, |factor| factor * (planned(made + 1) - planned(made)));
        let (mut tokens, mut cost) = (self.trees.len() as f64, sweep);
        let (mut made, mut guessing) = (0, 0.0);
        let mut candidates = BinaryHeap::new();
        let mut fresh: Vec<Fresh> =
            (0..self.trees.len()).map(|tree| Fresh { tree, node: None, chance: 1.0 }).collect();
        while !fresh.is_empty() {
            let modelled = self.ask(active, &fresh, (tokens, cost), &mut guessing);
            for (i, at) in fresh.drain(..).enumerate() {
                let modelled = modelled.get(i).map_or(&[][..], Vec::as_slice);
                self.candidates(active, at, modelled, &mut candidates);
            }
            let likely = candidates.peek().map_or(0.0, |best: &Candidate| best.chance) * LIKELY;
            let chained = !rows.states.is_empty();
            while let Some(Candidate { chance, .. }) = candidates.peek()
                && fresh.len() < if modelled.is_empty() || chained { 1 } else { ROUND }
                && (fresh.is_empty() || *chance >= likely)
                && made < spare
            {
                let more = next(made);
                if *chance < CHANCE_MIN || f64::from(*chance) * (cost + guessing) < tokens * more {
                    return;
                }
                let Some(Candidate { chance, tree, node }) = candidates.pop() else { return };
                (tokens, cost) = (tokens + f64::from(chance), cost + more);
                let slot = self.slots.0 + made as u32;
                let nodes = &mut self.trees[tree].nodes;
                nodes.push(Node { slot, ..node });
                fresh.push(Fresh { tree, node: Some(nodes.len() - 1), chance });
                made += 1;
                if chained {
                    candidates.clear();
                }
            }
        }
    }

    /// What the small model guesses for each of these places; nothing if there is none, or if what it would bring is not worth
    /// its time, in which the large model's sweep, which `cost`s so many seconds, brings so many `tokens`.
    fn ask(
        &mut self,
        active: &[Sequence<'_>],
        fresh: &[Fresh],
        (tokens, cost): (f64, f64),
        guessing: &mut f64,
    ) -> Vec<Vec<(u32, Kind)>> {
        let Some(model) = &mut self.model else { return Vec::new() };
        // Of those that are right about so many lead to another.
        let brings: f64 = fresh.iter().map(|fresh| f64::from(fresh.chance) * WORTH).sum();
        if brings * (cost + *guessing) < tokens * model.seconds {
            return Vec::new();
        }
        match model.guess(active, &self.trees, fresh, self.slots.0) {
            Ok(guesses) => {
                *guessing += model.seconds;
                guesses
            }
            Err(error) => {
                (self.model, self.trouble) = (None, Some(error));
                Vec::new()
            }
        }
    }

    /// What may follow a place.
    fn candidates(
        &self,
        active: &[Sequence<'_>],
        at: Fresh,
        modelled: &[(u32, Kind)],
        candidates: &mut BinaryHeap<Candidate>,
    ) {
        let Fresh { tree, node, chance } = at;
        let Tree { index, ref nodes, depth_max, ref siblings, .. } = self.trees[tree];
        let depth = node.map_or(0, |node| nodes[node].depth) + 1;
        if depth > depth_max {
            return;
        }
        let sequence = &active[index];
        let mut end: Vec<u32> = path(nodes, node).map(|node| nodes[node].token).collect();
        end.extend(sequence.tokens.iter().rev().take(MATCH_MAX.saturating_sub(end.len()).max(2)));
        end.reverse();
        let mut guesses = self.guesses((sequence.id, siblings), &end);
        modelled.iter().for_each(|guess| self.add(&mut guesses, *guess));
        for (token, kind) in guesses {
            let chance = chance * self.chances.of(kind);
            let node = Node { before: node, token, kind, depth, slot: 0, logits: 0 };
            candidates.push(Candidate { chance, tree, node });
        }
    }

    /// Adds a guess; of two of one token the one that is likelier to be right stays.
    fn add(&self, guesses: &mut Vec<(u32, Kind)>, (token, kind): (u32, Kind)) {
        match guesses.iter_mut().find(|(known, _)| *known == token) {
            Some((_, known)) if self.chances.of(*known) < self.chances.of(kind) => *known = kind,
            Some(_) => {}
            None => guesses.push((token, kind)),
        }
    }

    /// Tokens that may follow the end of a sequence, each once.
    fn guesses(&self, (id, siblings): (u64, &[u64]), end: &[u32]) -> Vec<(u32, Kind)> {
        let mut found: Vec<Continuation> = Vec::new();
        let own = std::iter::once(&id).chain(siblings).filter_map(|id| self.own.get(id));
        for history in own.chain(&self.finished) {
            history.continuations(end, &mut found);
        }
        found.sort_by_key(|found| std::cmp::Reverse(found.matched));
        let kind = |(i, matched)| if i == 0 { Kind::Longest(matched) } else { Kind::Other(matched) };
        let found = found.iter().enumerate().map(|(i, c)| (c.token, kind((i, c.matched))));
        let mut guesses: Vec<(u32, Kind)> = found.take(WIDTH_MAX).collect();
        let expected = pair(end).and_then(|pair| self.successors.after(pair));
        if let Some((expected, of_pair)) = expected {
            for &(token, chance) in expected.iter().filter(|(token, _)| *token != u32::MAX) {
                self.add(&mut guesses, (token, Kind::expected(of_pair, chance)));
            }
        }
        guesses
    }

    /// Lets every sequence go on as far as guesses are right, once its last token's logits were taken; gives those that were
    /// right, by the place of their sequence.
    pub(crate) fn follow(
        &mut self,
        active: &mut [Sequence<'_>],
        (logits, width): (&[f32], usize),
        sampler: &mut Sampler,
        observer: &mut dyn Observer,
    ) -> Vec<(usize, Vec<Right>)> {
        let row = |number: usize| &logits[number * width..][..width];
        let mut all = Vec::new();
        for tree in &self.trees {
            let sequence = &mut active[tree.index];
            if !sequence.is_salted() {
                if let Some(pair) = pair(&sequence.tokens[..=tree.root]) {
                    self.successors.learn(pair, row(tree.logits));
                }
                for node in &tree.nodes {
                    let before = match node.before {
                        Some(before) => tree.nodes[before].token,
                        None => sequence.tokens[tree.root],
                    };
                    self.successors.learn((Some(before), node.token), row(node.logits));
                }
            }
            let (mut at, mut position, mut right) = (None, tree.root, Vec::new());
            while let Some(&next) = sequence.tokens.get(position + 1)
                && !sequence.not_finite
            {
                let mut step = None;
                for (i, node) in tree.nodes.iter().enumerate().filter(|(_, node)| node.before == at) {
                    self.chances.judge(node.kind, node.token == next);
                    step = step.or((node.token == next).then_some(i));
                }
                let Some(node) = step.filter(|_| !sequence.closed()) else { break };
                (at, position) = (step, position + 1);
                let Node { slot, logits, .. } = tree.nodes[node];
                right.push(Right { slot, position });
                match has_nan(row(logits)) {
                    true => sequence.not_finite = true,
                    false => sequence.take_logits(position, row(logits), sampler, observer),
                }
            }
            all.push((tree.index, right));
        }
        all
    }

    /// Copies the recurrent state that guesses of the sweep at hand are to change, if there are some.
    pub(crate) fn keep_state(
        &mut self,
        active: &[Sequence<'_>],
        pages: &mut Pages,
        copy: &mut dyn FnMut(u32, u32) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let guessed = self.trees.iter().find(|tree| !tree.nodes.is_empty());
        match guessed.and_then(|tree| active[tree.index].state).filter(|_| pages.keeps_states()) {
            Some(state) => {
                self.copy = pages.take_state();
                self.copy.map_or(Ok(()), |to| copy(state, to))
            }
            None => Ok(()),
        }
    }

    /// The sequence that was guessed has its recurrent state of before again, and goes on from there, unless it has computed
    /// all guesses, which were right then.
    pub(crate) fn take_back(&mut self, rows: &Rows, active: &mut [Sequence<'_>], pages: &mut Pages) {
        let Some(copy) = self.copy.take() else { return };
        let Some(tree) = self.trees.iter().find(|tree| !tree.nodes.is_empty()) else {
            return pages.release_state(copy);
        };
        let (sequence, next) = (&mut active[tree.index], tree.root + 1);
        if sequence.computed == next + tree.nodes.len() {
            return pages.release_state(copy);
        }
        sequence.computed = next - (rows.of_last_state() - tree.nodes.len());
        if let Some(state) = sequence.state.replace(copy) {
            pages.release_state(state);
        }
    }

    /// The copy of a state that a sweep which failed has left.
    pub(crate) fn take_copy(&mut self) -> Option<u32> {
        self.copy.take()
    }

    /// The sweep at hand, which answers go on with, took so long; of experts it used as many as so many rows that have nothing in
    /// common.
    pub(crate) fn took(&mut self, rows: usize, seconds: f64, independent: Option<f64>) {
        if self.slots.1 > 0 {
            self.pace.learn(rows, seconds);
        }
        let guesses = self.made();
        if let (Some(common), Some(independent)) = (&mut self.common, independent) {
            common.learn(rows - guesses, guesses, independent);
        }
    }

    /// Guesses of the sweep at hand.
    pub(crate) fn made(&self) -> usize {
        self.trees.iter().map(|tree| tree.nodes.len()).sum()
    }

    /// Another run begins, whose sequences may have the same ids.
    pub(crate) fn begin_run(&mut self) {
        self.own.clear();
    }

    /// Remembers a text that is finished, unless it is not for everybody.
    pub(crate) fn finished(&mut self, sequence: &Sequence<'_>) {
        self.own.remove(&sequence.id);
        if self.slots.1 == 0 || !sequence.generates() || sequence.is_salted() {
            return;
        }
        if self.finished[0].len() >= FINISHED_TOKENS {
            self.finished.swap(0, 1);
            self.finished[0] = History::default();
        }
        let last = sequence.tokens.len().saturating_sub(FINISHED_TOKENS);
        self.finished[0].append(&sequence.tokens[last..]);
    }
}

/// The last two tokens, or the only one.
fn pair(end: &[u32]) -> Option<(Option<u32>, u32)> {
    let (&last, before) = end.split_last()?;
    Some((before.last().copied(), last))
}

/// A guess and those before it, the last first.
fn path(nodes: &[Node], from: Option<usize>) -> impl Iterator<Item = usize> {
    std::iter::successors(from, move |node| nodes[*node].before)
}

/// Gives the guesses of a tree rows, those of one sequence together.
fn place(tree: &mut Tree, sequence: &Sequence<'_>, rows: &mut Rows) {
    let root = rows.logit_rows[tree.logits] as usize;
    let (table, from) = (rows.places[root].table, tree.root as u32 + 1);
    for made in 0..tree.nodes.len() {
        let Node { token, depth, .. } = tree.nodes[made];
        let slots = rows.slots.len();
        rows.slots.extend(path(&tree.nodes, Some(made)).map(|node| tree.nodes[node].slot));
        rows.slots[slots..].reverse();
        let position = tree.root + depth;
        tree.nodes[made].logits = rows.logit_rows.len();
        rows.logit_rows.push(rows.tokens.len() as u32);
        rows.tokens.push(token);
        let branch = Some(Branch { from, slots: slots as u32 });
        rows.places.push(RowPlace { branch, ..RowPlace::new(position as u32, table) });
        rows.lengths.push(sequence.prompt.max(position + 1) as u32);
        if let Some(last) = rows.states.last().copied() {
            rows.states.push(StateRow { position: position as u32, ..last });
        }
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The likelier is greater; of equals, the one of the earlier sequence, then of the lower token.
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let place = |c: &Self| std::cmp::Reverse((c.tree, c.node.depth, c.node.token));
        self.chance.total_cmp(&other.chance).then_with(|| place(self).cmp(&place(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Phase, Silent};
    use crate::sweep::Listeners;
    use crate::{Engine, ModelFiles, Need, Options, Request};

    /// Windows, biases by distance, latent attention with and without an indexer, sinks, experts.
    const MODELS: [&str; 8] =
        ["llama", "gemma3", "bloom", "deepseek_v3", "deepseek_v32", "gpt_oss", "mixtral", "phi3"];

    /// Whatever is guessed, a guess's logits are those of a plain text that holds its path.
    #[test]
    fn rows_of_random_trees_have_the_logits_of_plain_texts() {
        let mut seed = 7u64;
        let mut random = |end: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % end
        };
        for name in MODELS {
            let fixture = aerostat_testkit::fixture(name);
            let files = ModelFiles::open(&fixture.path).unwrap();
            let options = Options { pinned_bytes_max: Some(0), ..Options::default() };
            let mut engine = Engine::open(&files, &options, &Need::many(4, 64), &mut Silent).unwrap();
            let mut tokens = fixture.prompts[0].ids.clone();
            tokens.truncate(21);
            let request = Request { token_ids: tokens.clone(), max_new_tokens: 30, ..Request::default() };
            let sequence = Sequence::new(request, None, &mut Silent).unwrap();
            let pages = engine.pages.take(engine.pages.needed(60)).unwrap();
            let mut rows = Rows::default();
            let table = rows.table(&pages);
            for (position, &token) in tokens.iter().enumerate() {
                rows.tokens.push(token);
                rows.places.push(RowPlace::new(position as u32, table));
                rows.lengths.push(tokens.len() as u32);
            }
            let root = tokens.len() - 1;
            rows.logit_rows.push(root as u32);
            let mut nodes: Vec<Node> = Vec::new();
            for made in 0..24 {
                let before = Some(random(made + 1)).filter(|before| *before < made);
                let depth = before.map_or(0, |before| nodes[before].depth) + 1;
                let token = random(files.spec().vocab) as u32;
                let slot = engine.drafts.slots.0 + (23 - made) as u32;
                nodes.push(Node { before, token, kind: Kind::Other(1), depth, slot, logits: 0 });
            }
            let siblings = Vec::new();
            let mut tree = Tree { index: 0, root, logits: 0, depth_max: 30, siblings, nodes };
            place(&mut tree, &sequence, &mut rows);
            let mut to = Listeners { give: &mut |_, _| {}, observer: &mut Silent };
            let logits = engine.sweeper.sweep(&rows, Phase::Decode, false, &mut to).unwrap().to_vec();
            engine.pages.release(pages);
            for (made, node) in tree.nodes.iter().enumerate() {
                let mut ends: Vec<u32> = path(&tree.nodes, Some(made)).map(|i| tree.nodes[i].token).collect();
                ends.reverse();
                let text = [&tokens[..], &ends].concat();
                let score = engine.score(&[text], true, &mut Silent).unwrap().remove(0).unwrap();
                let want: Vec<u32> = score.logits_last.unwrap().iter().map(|l| l.to_bits()).collect();
                let found = &logits[node.logits * want.len()..][..want.len()];
                let found: Vec<u32> = found.iter().map(|l| l.to_bits()).collect();
                assert_eq!(found, want, "{name}: guess {made} of depth {}", node.depth);
            }
        }
    }
}
