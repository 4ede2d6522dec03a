//! A small model that guesses what a large one of the same vocabulary would say.
//!
//! It is an engine of its own, whole in memory, with its own cache. Before each sweep of the large model it computes what the
//! texts have gained, then guesses in rounds, each a sweep of its own with a row for each guess that is to go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use aerostat_backend::{Backend, Branch, RowPlace};
use aerostat_model::Program;
use aerostat_plan::{Machine, PAGE_TOKENS};

use super::chance::Kind;
use super::successors::{KEPT, likeliest};
use super::{Fresh, Tree, path};
use crate::engine::{self, Engine};
use crate::model_files::ModelFiles;
use crate::need::Need;
use crate::observe::{Observer, Phase, Silent};
use crate::options::{Device, Draft, Options};
use crate::parts::Parts;
use crate::rows::Rows;
use crate::sampler::Sampler;
use crate::sequence::Sequence;
use crate::sweep::Listeners;
use crate::{Error, ErrorKind, Plan};

/// Sequences that it follows at once.
const SEQUENCES_MAX: usize = 8;
/// Rows of its sweeps at most.
const ROWS_MAX: usize = 256;
/// How much a sweep counts in the mean of the times that they take.
const LATEST: f64 = 0.2;

/// A small model in memory.
pub(crate) struct SmallModel {
    engine: Engine,
    /// By sequence: the tokens that its cache holds, and where.
    known: HashMap<u64, Known>,
    sampler: Sampler,
    /// What a round takes.
    pub(super) seconds: f64,
    /// Tokens that the large model has.
    vocab: u32,
}

#[derive(Debug, Default)]
struct Known {
    tokens: Vec<u32>,
    pages: Vec<u32>,
}

/// Guesses for one place: tokens and the kind of each.
pub(super) type Guesses = Vec<(u32, Kind)>;

impl SmallModel {
    /// What it takes in memory beside the large model, for a need of that one.
    pub(crate) fn plan(
        files: &ModelFiles,
        (options, need): (&Options, &Need),
        machine: (&dyn Backend, &Machine),
    ) -> Result<Plan, Error> {
        if files.spec.state_elements() > 0 || files.spec.head.absent {
            let path = files.path().display();
            let message = format!("{path} cannot guess: it has no LM head, or keeps recurrent states");
            return Err(Error::new(ErrorKind::Model, message));
        }
        let (options, need) = Self::options(options, need);
        let plan = engine::plan(files, &Program::compile(&files.spec)?, &options, &need, machine)?;
        if !plan.resident {
            let message = format!("the draft model {} does not fit in memory", files.path().display());
            return Err(Error::new(ErrorKind::Budget, message));
        }
        Ok(plan)
    }

    /// Reads it.
    pub(crate) fn open(
        files: &Arc<ModelFiles>,
        (options, need): (&Options, &Need),
        vocab: usize,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        let (options, need) = Self::options(options, need);
        let parts = Parts::of(files, &options)?;
        let mut quiet = Loading(observer);
        let engine = Engine::open_with(files, &options, &need, parts, &mut quiet)?;
        let (known, sampler) = (HashMap::new(), Sampler::default());
        Ok(Self { engine, known, sampler, seconds: 0.0, vocab: vocab as u32 })
    }

    fn options(options: &Options, need: &Need) -> (Options, Need) {
        let options = Options {
            memory_bytes: None,
            // A GPU has better to do; results do not depend on it.
            device: if let Device::Gpu(_) = options.device { Device::Cpu } else { options.device },
            draft: Draft::Texts,
            rows_max: Some(ROWS_MAX),
            tile_bytes: None,
            pinned_bytes_max: None,
            prefill_chunk: None,
            spill: None,
            prompt_cache: None,
            expert_use: None,
            ..options.clone()
        };
        // An answer's last token is guessed, and never computed.
        (options, Need::many(need.sequences().min(SEQUENCES_MAX), need.positions_max()))
    }

    /// Takes what sequences have gained, as far as there is room for them.
    fn follow(&mut self, active: &[Sequence<'_>], trees: &[Tree]) {
        let Self { known, engine, .. } = self;
        known.retain(|id, known| {
            let stays = trees.iter().any(|tree| active[tree.index].id == *id);
            if !stays {
                engine.pages.release(std::mem::take(&mut known.pages));
            }
            stays
        });
        for tree in trees {
            let sequence = &active[tree.index];
            let vocab = engine.model().spec().vocab;
            if sequence.tokens.iter().any(|token| *token as usize >= vocab) {
                continue;
            }
            let known = known.entry(sequence.id).or_default();
            let same = known.tokens.iter().zip(&sequence.tokens).take_while(|(a, b)| a == b).count();
            // The last one's logits are wanted.
            known.tokens.truncate(same.min(tree.root));
            let wanted = engine.pages.needed(tree.root + 1).saturating_sub(known.pages.len());
            known.pages.extend(engine.pages.take(wanted).into_iter().flatten());
        }
    }

    /// What may follow the last tokens of sequences, and guesses: for each of `fresh` its guesses, none where it is not known
    /// to this model.
    pub(super) fn guess(
        &mut self,
        active: &[Sequence<'_>],
        trees: &[Tree],
        fresh: &[Fresh],
        first_slot: u32,
    ) -> Result<Vec<Guesses>, Error> {
        let begun = Instant::now();
        if fresh.iter().any(|fresh| fresh.node.is_none()) {
            self.follow(active, trees);
        }
        let mut all = vec![Guesses::new(); fresh.len()];
        let (mut rows, mut owners, mut tables) = (Rows::default(), Vec::new(), HashMap::new());
        let limits = self.engine.model().limits();
        for (owner, fresh) in fresh.iter().enumerate() {
            let tree = &trees[fresh.tree];
            let sequence = &active[tree.index];
            let Some(known) = self.known.get_mut(&sequence.id) else { continue };
            if known.pages.len() * PAGE_TOKENS <= tree.root {
                continue;
            }
            if fresh.node.is_none() {
                // A prompt takes several sweeps.
                while tree.root - known.tokens.len() >= limits.rows_max - rows.tokens.len() {
                    let room = limits.rows_max - rows.tokens.len();
                    let from = known.tokens.len();
                    known.tokens.extend(&sequence.tokens[from..from + room]);
                    let table = *tables.entry(fresh.tree).or_insert_with(|| rows.table(&known.pages));
                    commit(&mut rows, table, (known, sequence), from);
                    sweep(&mut self.engine, &rows)?;
                    rows.clear();
                    owners.clear();
                    tables.clear();
                }
                let from = known.tokens.len();
                known.tokens.extend(&sequence.tokens[from..=tree.root]);
                let table = *tables.entry(fresh.tree).or_insert_with(|| rows.table(&known.pages));
                commit(&mut rows, table, (known, sequence), from);
            } else if rows.tokens.len() < limits.rows_max
                && fresh.token(trees) < self.engine.model().spec().vocab
            {
                let slot = |slot: u32| self.engine.drafts.slots.0 + slot - first_slot;
                let table = *tables.entry(fresh.tree).or_insert_with(|| rows.table(&known.pages));
                branch(&mut rows, table, (tree, sequence), (fresh.node, &slot));
            } else {
                continue;
            }
            if rows.logit_rows.len() < limits.logit_rows_max {
                rows.logit_rows.push(rows.tokens.len() as u32 - 1);
                owners.push(owner);
            }
        }
        if !owners.is_empty() {
            let width = self.engine.model().spec().vocab;
            let logits = sweep(&mut self.engine, &rows)?;
            for (logits, &owner) in logits.chunks_exact(width).zip(&owners) {
                let Fresh { tree, node, .. } = fresh[owner];
                let tree = &trees[tree];
                all[owner] = expected(logits, (tree, node), &active[tree.index], &mut self.sampler);
                all[owner].retain(|(token, _)| *token < self.vocab);
            }
        }
        let took = begun.elapsed().as_secs_f64();
        self.seconds += (took - self.seconds) * if self.seconds == 0.0 { 1.0 } else { LATEST };
        Ok(all)
    }
}

/// One sweep.
fn sweep<'e>(engine: &'e mut Engine, rows: &Rows) -> Result<&'e [f32], Error> {
    let mut to = Listeners { give: &mut |_, _| {}, observer: &mut Silent };
    engine.sweeper.sweep(rows, Phase::Decode, true, &mut to)
}

/// Rows of a sequence's own tokens.
fn commit(rows: &mut Rows, table: u32, (known, sequence): (&Known, &Sequence<'_>), from: usize) {
    for position in from..known.tokens.len() {
        rows.tokens.push(known.tokens[position]);
        rows.places.push(RowPlace::new(position as u32, table));
        rows.lengths.push(sequence.prompt.max(position + 1) as u32);
    }
}

/// The row of a guess.
fn branch(
    rows: &mut Rows,
    table: u32,
    (tree, sequence): (&Tree, &Sequence<'_>),
    (node, slot): (Option<usize>, &dyn Fn(u32) -> u32),
) {
    let Some(node) = node else { return };
    let slots = rows.slots.len();
    rows.slots.extend(path(&tree.nodes, Some(node)).map(|node| slot(tree.nodes[node].slot)));
    rows.slots[slots..].reverse();
    let position = (tree.root + tree.nodes[node].depth) as u32;
    let branch = Some(Branch { from: tree.root as u32 + 1, slots: slots as u32 });
    rows.tokens.push(tree.nodes[node].token);
    rows.places.push(RowPlace { branch, ..RowPlace::new(position, table) });
    rows.lengths.push((sequence.prompt as u32).max(position + 1));
}

/// What these logits say follows: first what would be chosen of them, in this place, then the likeliest others.
fn expected(
    logits: &[f32],
    (tree, node): (&Tree, Option<usize>),
    sequence: &Sequence<'_>,
    sampler: &mut Sampler,
) -> Guesses {
    let mut tokens: Vec<u32> = path(&tree.nodes, node).map(|node| tree.nodes[node].token).collect();
    tokens.reverse();
    tokens.splice(..0, sequence.tokens.iter().copied());
    let (drawn, temperature) = sequence.draw(&tokens, logits, sampler);
    let likeliest: [(u32, f32); KEPT] = likeliest(logits, temperature);
    let chance =
        |token| likeliest.iter().find(|(known, _)| *known == token).map_or(0.0, |(_, chance)| *chance);
    let first = drawn.map(|token| (token, Kind::drawn(chance(token))));
    let others = likeliest.iter().filter(|(token, _)| Some(*token) != drawn && *token != u32::MAX);
    first.into_iter().chain(others.map(|(token, chance)| (*token, Kind::modelled(*chance)))).collect()
}

/// Shows loading, and nothing else.
struct Loading<'a>(&'a mut dyn Observer);

impl Observer for Loading<'_> {
    fn progress(&mut self, progress: &crate::Progress) -> bool {
        self.0.progress(progress)
    }
}

impl std::fmt::Debug for SmallModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmallModel").field("seconds", &self.seconds).finish_non_exhaustive()
    }
}
