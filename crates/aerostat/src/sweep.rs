//! The sweep loop: one pass over the weights.

use std::sync::Arc;
use std::time::Instant;

use aerostat_arch::Role;
use aerostat_backend::{Backend, defect};
use aerostat_model::program::{Op, Product, Slice};
use aerostat_model::{Batch, Model};
use aerostat_plan::Plan;

use crate::Error;
use crate::clock::{At, Clock};
use crate::embedder::Embedder;
use crate::observe::{Observer, Phase};
use crate::request::Layer;
use crate::rows::{Rows, Tap};
use crate::store::{WeightStore, named};

/// A program with its weights, on a device.
pub(crate) struct Sweeper {
    pub(crate) plan: Plan,
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) model: Model,
    pub(crate) store: WeightStore,
    /// Of each of the model's tables.
    pub(crate) embedders: Vec<Embedder>,
    pub(crate) clock: Clock,
}

/// Who is told what happens during a sweep.
pub(crate) struct Listeners<'a> {
    /// Takes the hidden states of rows that are tapped.
    pub(crate) give: &'a mut dyn FnMut(&Tap, &[f32]),
    /// Is shown every tile, and may ask to stop.
    pub(crate) observer: &'a mut dyn Observer,
}

impl Sweeper {
    /// One pass over the weights for the given rows; gives logits, `[logit rows, vocab]` in the order of `rows.logit_rows`,
    /// and none, without running the head, if no row needs them.
    ///
    /// `more` says that another sweep is likely to follow: its first tiles are then read while this one ends.
    pub(crate) fn sweep(
        &mut self,
        rows: &Rows,
        phase: Phase,
        more: bool,
        to: &mut Listeners<'_>,
    ) -> Result<&[f32], Error> {
        let begun = Instant::now();
        let batch = rows.batch();
        let head = !batch.logit_rows.is_empty();
        let tiles = if head { self.plan.steps.len() } else { self.plan.sweep().0.len() };
        let mut at = At { phase, tile: 0, tiles, block: 0, rows: rows.tokens.len() };
        self.clock.begin_sweep(&self.plan, rows.tokens.len(), batch.logit_rows.len(), rows.guesses);
        self.store.begin(rows.tokens.len(), head, more)?;
        self.model.begin(&mut *self.backend, &batch)?;
        let program = Arc::clone(self.model.program());
        for op in program.sweep(head) {
            match op {
                Op::Embed { table, out } => self.embed(&rows.tokens, *table, *out)?,
                Op::Multiply(product) => self.multiply(product, &mut at, to)?,
                Op::Route { block, scores } => {
                    let chosen = self.model.route(&mut *self.backend, *block, *scores)?;
                    let chosen = chosen.to_vec();
                    self.store.route(&self.plan, self.model.spec(), *block, &chosen)?;
                }
                Op::Experts { block } => self.experts(&batch, *block, at, to)?,
                Op::Tap { blocks, .. } => self.tap(rows, *blocks, to)?,
                op => self.clock.computing(|| self.model.run(&mut *self.backend, &batch, op))?,
            }
        }
        self.store.end();
        self.clock.sweeping += begun.elapsed();
        if head { Ok(self.model.logits(&mut *self.backend)?) } else { Ok(&[]) }
    }

    /// Puts what a table holds for the sweep's tokens where the program wants it.
    fn embed(&mut self, tokens: &[u32], table: usize, out: Slice) -> Result<(), Error> {
        let Self { embedders, model, store, backend, .. } = self;
        let out = model.place(out)?;
        let found = embedders.get_mut(table).zip(model.spec().tables().nth(table));
        let (embedder, table) = found.ok_or_else(|| defect!("there is no table {table} of embeddings"))?;
        embedder.embed(tokens, table, store.ring(), &mut **backend, out)
    }

    /// Multiplies the plan's next tiles: those of the product's matrix.
    fn multiply(&mut self, product: &Product, at: &mut At, to: &mut Listeners<'_>) -> Result<(), Error> {
        let begun = at.tile;
        while let Some(step) = self.plan.steps.get(at.tile).copied()
            && (step.block, step.role) == (product.block, product.role)
        {
            let Self { store, model, backend, clock, .. } = self;
            let weight = store.certain(&mut **backend, model.spec(), (at.tile, &step))?;
            let done = clock.computing(|| model.multiply(&mut **backend, product, &step, weight));
            store.done(&mut **backend, weight);
            done.map_err(|e| named(model.spec(), &step, e))?;
            at.tile += 1;
            at.block = step.block;
            self.show(*at, to)?;
        }
        if at.tile == begun {
            return Err(defect!("{product:?} is not what the plan has next").into());
        }
        Ok(())
    }

    /// Runs a block's experts that were chosen, one after the other.
    fn experts(
        &mut self,
        batch: &Batch<'_>,
        block: usize,
        at: At,
        to: &mut Listeners<'_>,
    ) -> Result<(), Error> {
        let program = Arc::clone(self.model.program());
        let ops = program.experts.get(block).filter(|ops| !ops.is_empty());
        let ops = ops.ok_or_else(|| defect!("block {block} has no program for experts"))?;
        for index in 0..self.model.chosen() {
            self.model.take_expert(index)?;
            for op in ops {
                match op {
                    Op::Multiply(product) => self.multiply_expert(product, index, at, to)?,
                    op => self.clock.computing(|| self.model.run(&mut *self.backend, batch, op))?,
                }
            }
        }
        Ok(())
    }

    /// Multiplies the tiles of a matrix of the expert at hand.
    fn multiply_expert(
        &mut self,
        product: &Product,
        index: usize,
        at: At,
        to: &mut Listeners<'_>,
    ) -> Result<(), Error> {
        let of: (usize, Role) = (index, product.role);
        let mut tiles = 0;
        loop {
            let Self { store, model, backend, clock, .. } = self;
            let Some((step, weight)) = store.expert(&mut **backend, model.spec(), of)? else { break };
            tiles += 1;
            let done = clock.computing(|| model.multiply(&mut **backend, product, &step, weight));
            store.done(&mut **backend, weight);
            done.map_err(|e| named(model.spec(), &step, e))?;
            self.show(at, to)?;
        }
        match tiles {
            0 => Err(defect!("{product:?} is not what expert {index} has next").into()),
            _ => Ok(()),
        }
    }

    /// Gives the hidden states that are wanted after so many blocks.
    fn tap(&mut self, rows: &Rows, blocks: usize, to: &mut Listeners<'_>) -> Result<(), Error> {
        let last = self.model.spec().blocks.len();
        for layer in [Layer::After(blocks), Layer::Final] {
            let wanted = || rows.taps.iter().filter(|tap| tap.layer == layer);
            if wanted().next().is_none() || (layer == Layer::Final && blocks != last) {
                continue;
            }
            let width = self.model.spec().hidden;
            let normed = layer == Layer::Final;
            let hidden = self.model.hidden(&mut *self.backend, &rows.batch(), normed)?;
            wanted().for_each(|tap| (to.give)(tap, &hidden[tap.row * width..][..width]));
        }
        Ok(())
    }

    /// Tells the observer, who may ask to stop.
    fn show(&mut self, at: At, to: &mut Listeners<'_>) -> Result<(), Error> {
        let read_bytes = self.store.ring_stats().0.read_bytes;
        let progress = self.clock.progress(at, self.model.spec(), read_bytes);
        if to.observer.progress(&progress) { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Forgets tiles that were asked for; the next sweep starts afresh.
    pub(crate) fn stop_reading(&mut self) {
        self.store.cancel(&mut *self.backend);
    }
}
