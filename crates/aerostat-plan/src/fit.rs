//! Fits a model and a demand into a budget.

use aerostat_arch::{Block, ModelSpec};
use aerostat_types::{DeviceMemory, Home};

use crate::cost::{Cost, Part};
use crate::explain::size;
use crate::mixture::{Hits, mixtures};
use crate::{
    Footprint, Machine, PAGE_TOKENS, Plan, PlanInput, ROWS_MAX, Sizes, Step, TILE_BYTES_MAX, Totals, steps,
};

/// A budget that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct Error {
    /// What was asked for.
    pub budget_bytes: u64,
    /// The smallest that works.
    pub minimum_bytes: u64,
    /// The process as it is, small tensors, scratch of threads, logits that results hold, and a reserve; on a device what it
    /// takes whatever is computed.
    pub overhead_bytes: u64,
    /// Two of the smallest tiles; on a device those that pass through.
    pub ring_bytes: u64,
    /// For the longest sequence alone, its recurrent state included.
    pub kv_bytes: u64,
    /// For the rows of the smallest plan: up to 16, four of them with logits.
    pub activation_bytes: u64,
    /// It is memory of a device that is too small.
    pub is_device: bool,
}

impl Error {
    fn text(&self) -> String {
        let Self {
            budget_bytes, minimum_bytes, overhead_bytes, ring_bytes, kv_bytes, activation_bytes, ..
        } = *self;
        let (budget, least) = (size(budget_bytes), minimum_bytes.div_ceil(1 << 20));
        let (overhead, ring) = (size(overhead_bytes), size(ring_bytes));
        let (kv, activations) = (size(kv_bytes), size(activation_bytes));
        match self.is_device {
            false => format!(
                "a memory budget of {budget} is too small: this model needs at least {least} MiB here ({overhead} for the \
                 process itself with its tokenizer, {ring} for a ring of two tiles, {kv} of KV cache and states, {activations} \
                 of activations); raise --memory to that, or lower --context"
            ),
            true => format!(
                "GPU memory of {budget} is too small: this model needs at least {least} MiB of it ({overhead} for buffers to \
                 write and read through, {ring} for tiles that pass through, {kv} of KV cache and states, {activations} of \
                 activations); raise --vram to that, or lower --context"
            ),
        }
    }
}

/// What the process grows by after the plan is made, beyond what the plan counts: code touched later, stacks,
/// token lists, results. Measured: 3 MiB at most where code is optimised, and 8 where it is not.
const RESERVE_BYTES: u64 = if cfg!(debug_assertions) { 12 << 20 } else { 8 << 20 };
/// How much smaller than the stated minimum a budget may be: what a process holds differs a little from run to run, and
/// the minimum that one run states must do for the next.
const SLACK_BYTES: u64 = 3 << 20;
const _: () = assert!(SLACK_BYTES < RESERVE_BYTES);
/// Rows, and rows with logits, that the smallest plan has if there is use for them: with one, prompts would take as many
/// sweeps as they have tokens.
const ROWS_MIN: usize = 16;
const LOGIT_ROWS_MIN: usize = 4;
/// Pages for each that sequences hold on average: nearly all are always in use.
const PAGES_CROWD: f64 = 1.05;
/// The same where memory is left: sequences that begin and grow together need twice their average in the end.
const PAGES_IN_STEP: f64 = 2.0;
/// The same for rows of logits: by chance a sweep has more than its share.
const LOGITS_CROWD: f64 = 1.25;
/// Fewer guesses are not worth what they take.
const DRAFTS_MIN: usize = 4;
/// Embedding rows that are kept: more than a page of text has different tokens.
const KEPT_ROWS_MAX: u64 = 8192;
/// What finding a kept row takes.
const KEPT_ROW_BYTES: u64 = 40;
/// Tiles of a model that stays in memory are not larger.
const TILE_BYTES_RESIDENT_MAX: u64 = 16 << 20;
const _: () = assert!(TILE_BYTES_RESIDENT_MAX >= TILE_BYTES_MAX);
/// Tiles are not cut smaller than this unless the user says so.
const TILE_BYTES_MIN: u64 = 256 << 10;
/// Of what is left of a device's memory, the part that weights may have: tiles do not fill allocations to the last byte.
const CHUNK_SHARE: (u64, u64) = (7, 8);
/// Buffers of a ring: at least to compute on one while another is read.
const SLOTS_MIN: usize = 2;
/// Enough to keep a disk's queue full while a tile is computed.
const SLOTS_GOOD: usize = 12;
/// Reads of less cost a disk a third of its rate, or more; a small ring has fewer slots rather.
const TILE_BYTES_GOOD: u64 = 1 << 20;
const SLOTS_SOME: usize = 4;

/// Makes the plan.
///
/// # Errors
/// The budget is too small; the error says the smallest that works and what takes it.
pub fn plan(spec: &ModelSpec, input: &PlanInput, machine: &Machine) -> Result<Plan, Error> {
    let sizes = Sizes::of(spec);
    let mut fit = Fit { spec, input, machine, sizes, apart: 0 };
    fit.apart = input.share.beside(fit.minimum().total());
    let least = fit.minimum().total();
    let budget = input.budget_bytes.unwrap_or((machine.available_bytes / 5 * 4).max(least));
    fit.apart = fit.apart.max(input.share.of(budget));
    let minimum = fit.minimum();
    if budget + SLACK_BYTES < minimum.total() {
        return Err(Error {
            budget_bytes: budget,
            minimum_bytes: minimum.total(),
            overhead_bytes: minimum.overhead,
            ring_bytes: minimum.ring(),
            kv_bytes: minimum.kv + minimum.states,
            activation_bytes: minimum.activations,
            is_device: false,
        });
    }
    if let Some(memory) =
        input.device.filter(|memory| memory.budget_bytes < fit.device_bytes(&minimum, memory))
    {
        return Err(Error {
            budget_bytes: memory.budget_bytes,
            minimum_bytes: fit.device_bytes(&minimum, &memory),
            overhead_bytes: memory.fixed_bytes + input.footprint.fixed_bytes,
            ring_bytes: memory.slots * fit.device_slot(minimum.tile),
            kv_bytes: minimum.kv + minimum.states,
            activation_bytes: minimum.activations,
            is_device: true,
        });
    }
    let resident = if input.device.is_none() { fit.resident(budget) } else { None };
    let layout = resident.unwrap_or_else(|| fit.grow(minimum.clone(), budget));
    Ok(fit.finish(layout, budget, least))
}

/// How the budget is spent.
#[derive(Clone, Debug)]
struct Layout {
    overhead: u64,
    activations: u64,
    rows: usize,
    logit_rows: usize,
    kv: u64,
    kv_pages: usize,
    /// Rows of guesses, and what guessing takes beside activations.
    draft_rows: usize,
    drafts: u64,
    /// Bytes of recurrent states, and of how many sequences.
    states: u64,
    state_slots: usize,
    /// Bytes of embedding rows that are kept, and how many.
    kept: u64,
    kept_rows: usize,
    tile: u64,
    slot: u64,
    slots: usize,
    pinned: u64,
    /// Weights that stay in memory of a device.
    on_device: u64,
    /// What of a device's memory is the host's, too, beside what is counted above.
    shared: u64,
    /// Slots for experts of each block, and bytes of all; where everything is in memory, all of them, counted as pinned.
    expert_slots: Vec<usize>,
    experts: u64,
    /// Coded weights are kept expanded.
    expanded: bool,
}

impl Layout {
    fn ring(&self) -> u64 {
        self.slot * self.slots as u64
    }

    fn used(&self) -> u64 {
        self.overhead
            + self.activations
            + self.kv
            + self.drafts
            + self.states
            + self.kept
            + self.ring()
            + self.pinned
            + self.shared
            + self.experts
    }

    /// The budget this layout needs, in whole MiB.
    fn total(&self) -> u64 {
        self.used().next_multiple_of(1 << 20)
    }
}

struct Fit<'a> {
    spec: &'a ModelSpec,
    input: &'a PlanInput,
    machine: &'a Machine,
    sizes: Sizes,
    /// What of the budget is kept for others.
    apart: u64,
}

impl Fit<'_> {
    /// Few rows, the longest sequence alone, two small tiles.
    fn minimum(&self) -> Layout {
        let tile = self.tile(TILE_BYTES_MIN);
        let footprint = self.input.footprint;
        let held =
            self.machine.process_bytes.max(self.machine.process_peak_bytes.saturating_sub(RESERVE_BYTES));
        let results = self.input.logit_rows_kept as u64 * footprint.logit_row_bytes;
        let kv_pages = self.input.sequence_tokens_max.div_ceil(PAGE_TOKENS).max(1);
        let rows = self.rows_wanted().min(ROWS_MIN).max(self.rows_least());
        let logit_rows = self.input.logit_rows_useful.clamp(1, LOGIT_ROWS_MIN).min(rows);
        Layout {
            overhead: held + RESERVE_BYTES + footprint.fixed_bytes + results + self.apart,
            activations: self.activations(rows, logit_rows),
            rows,
            logit_rows,
            kv: self.cache_bytes(kv_pages),
            kv_pages,
            draft_rows: 0,
            drafts: 0,
            states: footprint.state_bytes,
            state_slots: usize::from(footprint.state_bytes > 0),
            kept: 0,
            kept_rows: 0,
            tile,
            slot: self.slot(tile),
            slots: SLOTS_MIN,
            pinned: 0,
            on_device: 0,
            shared: self.input.device.map_or(0, |memory| self.shared_bytes(&memory, tile)),
            expert_slots: vec![0; self.spec.blocks.len()],
            experts: 0,
            expanded: false,
        }
    }

    /// What of a device's memory is the host's too, but for weights that stay there.
    fn shared_bytes(&self, memory: &DeviceMemory, tile: u64) -> u64 {
        match memory.shares_host {
            true => memory.fixed_bytes + memory.slots * self.device_slot(tile),
            false => 0,
        }
    }

    /// A tile as a device holds it: coded exponents are expanded.
    fn device_slot(&self, tile: u64) -> u64 {
        let coded = self.spec.matrices().any(|matrix| matrix.has_packed_exponents());
        (if coded { 2 * tile } else { tile }).next_multiple_of(4096)
    }

    /// What a layout takes in memory of a device, but for weights that stay there.
    fn device_bytes(&self, layout: &Layout, memory: &DeviceMemory) -> u64 {
        let slots = memory.slots * self.device_slot(layout.tile);
        let fixed = memory.fixed_bytes + self.input.footprint.fixed_bytes + slots;
        fixed + layout.activations + layout.kv + layout.drafts + layout.states
    }

    /// The same with weights of so many bytes; 0 where there is no such device.
    fn planned_on_device(&self, layout: &Layout, pinned: u64) -> u64 {
        self.input.device.map_or(0, |memory| self.device_bytes(layout, &memory) + pinned)
    }

    /// What is left of a device's memory.
    fn device_spare(&self, layout: &Layout) -> u64 {
        let spare =
            |memory: DeviceMemory| memory.budget_bytes.saturating_sub(self.device_bytes(layout, &memory));
        self.input.device.map_or(u64::MAX, spare)
    }

    /// Pins what fits into memory of a device, and then of the host's.
    fn pin(&self, layout: &mut Layout, tiles: &mut [Step], left: u64) -> u64 {
        let Some(memory) = self.input.device else { return steps::pin(tiles, left, Home::Host) };
        let mut room = self.device_spare(layout) / CHUNK_SHARE.1 * CHUNK_SHARE.0;
        if memory.shares_host {
            room = room.min(left);
        }
        layout.on_device = steps::pin(tiles, room, Home::Device);
        let left = if memory.shares_host { left - layout.on_device } else { left };
        if memory.shares_host {
            layout.shared += layout.on_device;
        }
        steps::pin(tiles, left, Home::Host)
    }

    /// Everything in memory, with all rows and sequences that are useful, if the budget allows: in large tiles, which
    /// threads begin and end together less often, or else in usual ones.
    fn resident(&self, budget: u64) -> Option<Layout> {
        let weights = self.spec.matrix_bytes();
        let large = (weights / 64).clamp(TILE_BYTES_MAX, TILE_BYTES_RESIDENT_MAX);
        // Coded weights are expanded once if they fit so: from memory that is faster than to expand them in every sweep.
        let mixes = self.spec.blocks.iter().any(|block| block.experts.is_some());
        let coded = !mixes && self.spec.matrices().any(|m| m.has_packed_exponents());
        let expanded = coded.then_some((TILE_BYTES_MAX, true));
        let ways = expanded.into_iter().chain([(large, false), (TILE_BYTES_MAX, false)]);
        ways.into_iter().find_map(|(tile, expanded)| self.resident_in_tiles(tile, expanded, budget))
    }

    fn resident_in_tiles(&self, tile: u64, expanded: bool, budget: u64) -> Option<Layout> {
        let tile = self.input.tile_bytes.unwrap_or(tile).max(self.sizes.row_bytes_max);
        let slot = self.slot(tile);
        let count = |block: &Block| block.experts.as_ref().map_or(0, |experts| experts.mlps.len());
        let expert_slots = self.spec.blocks.iter().map(count).collect();
        let mut layout =
            Layout { tile, slot, slots: SLOTS_MIN * 2, expert_slots, expanded, ..self.minimum() };
        layout.pinned = match expanded {
            true => steps::expanded_bytes(self.spec, tile),
            false => {
                let certain = steps::pin_all_bytes(&steps::tiles(self.spec, tile));
                certain + steps::pin_experts_bytes(self.spec, tile)
            }
        };
        if self.input.pinned_bytes_max.is_some_and(|max| max < layout.pinned) {
            return None;
        }
        let spare = budget.checked_sub(layout.used())?;
        self.grow_work(&mut layout, spare / 2);
        // A head in memory that is the embedding, too, has all rows.
        if !self.spec.tied() {
            let eighth = budget.saturating_sub(layout.used()) / 8;
            self.keep_rows(&mut layout, eighth);
        }
        Some(layout)
    }

    /// Spends what the minimum leaves: sequences and rows first, since they make every sweep worth more; then the
    /// ring; then embedding rows and pinned tiles.
    fn grow(&self, mut layout: Layout, budget: u64) -> Layout {
        let spare = |layout: &Layout| budget.saturating_sub(layout.used());
        let most = spare(&layout).min(self.device_spare(&layout)) / 4 * 3;
        self.grow_work(&mut layout, most);
        let minimum_ring = layout.ring();
        let ring = minimum_ring + spare(&layout).min(self.device_spare(&layout)) / 4 * 3;
        let some = (ring / SLOTS_SOME as u64).min(TILE_BYTES_GOOD);
        layout.tile = self.tile((ring / SLOTS_GOOD as u64).max(some));
        layout.slot = self.slot(layout.tile);
        while layout.slot * SLOTS_MIN as u64 > ring {
            layout.tile = self.tile(layout.tile / 2);
            layout.slot = self.slot(layout.tile);
        }
        layout.slots = ((ring / layout.slot) as usize).clamp(SLOTS_MIN, SLOTS_GOOD);
        self.fit_slots(&mut layout, budget);
        let half = spare(&layout) / 2;
        self.keep_rows(&mut layout, half);
        let left = spare(&layout).min(self.input.pinned_bytes_max.unwrap_or(u64::MAX));
        let mut tiles = steps::tiles(self.spec, layout.tile);
        layout.pinned = self.pin(&mut layout, &mut tiles, left);
        let shared = if self.input.device.is_some_and(|m| m.shares_host) { layout.on_device } else { 0 };
        let left = left - shared - layout.pinned;
        (layout.expert_slots, layout.experts) = self.expert_slots(layout.tile, left);
        layout
    }

    /// Smaller tiles until those that pass through a device fit its memory, and the host's where it is the same.
    fn fit_slots(&self, layout: &mut Layout, budget: u64) {
        let Some(memory) = self.input.device else { return };
        loop {
            layout.shared = self.shared_bytes(&memory, layout.tile);
            let fits = self.device_bytes(layout, &memory) <= memory.budget_bytes && layout.used() <= budget;
            let smaller = self.tile(layout.tile / 2);
            if fits || smaller >= layout.tile {
                return;
            }
            (layout.tile, layout.slot) = (smaller, self.slot(smaller));
        }
    }

    /// Spends up to `spare` on rows and on the sequences they belong to.
    fn grow_work(&self, layout: &mut Layout, spare: u64) {
        let more = |wanted: usize, have: usize, each: u64, spare: u64| {
            (wanted.saturating_sub(have) as u64).min(spare / each.max(1)) as usize
        };
        let spare = spare - self.grow_states(layout, spare / 2);
        let rows = self.rows_within(layout, spare);
        let spare = spare - self.grow_cache(layout, self.pages_useful(rows, PAGES_CROWD), spare / 4 * 3);
        // Where prompts begin alike, more sequences are answered at once than their lengths tell.
        let (logits_most, each) =
            (self.input.logit_rows_useful.min(self.rows_wanted()), self.input.footprint.logit_row_bytes);
        let logits = more(self.logit_rows_useful(rows), layout.logit_rows, each, spare / 2).max(more(
            logits_most,
            layout.logit_rows,
            each,
            spare / 8,
        ));
        layout.logit_rows += logits;
        let spare = spare - logits as u64 * each;
        let rows_more = more(self.rows_wanted(), layout.rows, self.input.footprint.row_bytes, spare);
        layout.rows += rows_more;
        let spare = spare - rows_more as u64 * self.input.footprint.row_bytes;
        let spare = spare - self.grow_cache(layout, self.pages_useful(rows, PAGES_IN_STEP), spare);
        layout.logit_rows = layout.logit_rows.min(layout.rows);
        self.grow_drafts(layout, spare / 2);
        layout.activations = self.activations(layout.rows, layout.logit_rows);
    }

    /// Spends up to `spare` on pages, if there are not so many yet; gives what they take.
    fn grow_cache(&self, layout: &mut Layout, pages: usize, spare: u64) -> u64 {
        let (have, first) = (layout.kv, self.input.footprint.first_positions.div_ceil(PAGE_TOKENS));
        let (dear, each) = (self.cache_bytes(1), self.cache_bytes(first + 1) - self.cache_bytes(first));
        let within = match (have + spare) / dear.max(1) {
            few if few <= first as u64 => few,
            _ => first as u64 + (have + spare - self.cache_bytes(first)) / each.max(1),
        };
        layout.kv_pages = layout.kv_pages.max(pages.min(within as usize));
        layout.kv = self.cache_bytes(layout.kv_pages);
        layout.kv - have
    }

    /// Spends up to `spare` on rows of guesses: as many as there is use for, beside rows and logits of those that are not.
    fn grow_drafts(&self, layout: &mut Layout, spare: u64) {
        let (wanted, fixed) = (self.input.draft_rows, self.input.draft_bytes);
        // A recurrent state as it was before guesses, which may be wrong.
        let state = self.input.footprint.state_bytes;
        let rows_most = self.input.rows_max.unwrap_or(ROWS_MAX);
        // Where many have logits anyway, guesses take what those leave.
        let logit_rows = |drafts: usize| layout.logit_rows.max((layout.logit_rows + drafts).min(2 * wanted));
        let rows = |drafts: usize| layout.rows.max(logit_rows(drafts));
        let cost = |drafts: usize| {
            let kv = self.draft_pages_bytes(layout, drafts);
            let more = self.activations(rows(drafts) - layout.rows, logit_rows(drafts) - layout.logit_rows);
            fixed + kv + state + more
        };
        let fits = |drafts: &usize| rows(*drafts) <= rows_most && cost(*drafts) <= spare;
        let Some(drafts) = (DRAFTS_MIN..=wanted).rev().find(fits) else { return };
        let bytes = cost(drafts);
        let (rows, logit_rows) = (rows(drafts), logit_rows(drafts));
        let activations = self.activations(rows - layout.rows, logit_rows - layout.logit_rows);
        (layout.draft_rows, layout.drafts) = (drafts, bytes - activations - state);
        layout.state_slots += usize::from(state > 0);
        layout.states += state;
        (layout.rows, layout.logit_rows) = (rows, logit_rows);
    }

    /// The most rows that a sweep can carry if `spare` is spent on them, their logits and their share of the KV cache.
    fn rows_within(&self, layout: &Layout, spare: u64) -> usize {
        let fits = |rows: usize| {
            let pages = self.pages_useful(rows, PAGES_CROWD).max(layout.kv_pages);
            let logits = self.logit_rows_useful(rows).saturating_sub(layout.logit_rows);
            let cache = self.cache_bytes(pages) - self.cache_bytes(layout.kv_pages);
            cache + self.activations(rows.saturating_sub(layout.rows), logits) <= spare
        };
        let (mut least, mut most) = (layout.rows, self.rows_wanted() + 1);
        while least + 1 < most {
            let middle = least.midpoint(most);
            *(if fits(middle) { &mut least } else { &mut most }) = middle;
        }
        least
    }

    /// Pages that sequences hold while sweeps carry so many rows: on average, times `crowd`.
    fn pages_useful(&self, rows: usize, crowd: f64) -> usize {
        let Totals { rows: all, kv_pages, .. } = self.input.totals;
        let held = (kv_pages as f64 / all.max(1) as f64 * rows as f64 * crowd).ceil() as usize;
        // A sequence's last page may be nearly empty.
        held.min(self.input.tokens_total.div_ceil(PAGE_TOKENS) + self.input.sequences)
    }

    /// Rows with logits of sweeps that carry so many rows.
    fn logit_rows_useful(&self, rows: usize) -> usize {
        let Totals { rows: all, logit_rows, .. } = self.input.totals;
        let share = logit_rows as f64 / all.max(1) as f64 * LOGITS_CROWD;
        ((rows as f64 * share).ceil() as usize).min(rows).min(self.input.logit_rows_useful)
    }

    /// Spends up to `spare` on embedding rows.
    fn keep_rows(&self, layout: &mut Layout, spare: u64) {
        let each = self.spec.tables().map(|table| table.row_bytes() + KEPT_ROW_BYTES).sum::<u64>();
        let spare = spare.min(self.input.pinned_bytes_max.unwrap_or(u64::MAX));
        let rows = (spare / each).min(KEPT_ROWS_MAX).min(self.spec.vocab as u64);
        (layout.kept, layout.kept_rows) = (rows * each, rows as usize);
    }

    /// Spends up to `spare` on states of more sequences, as far as there are pages for them too; gives what they take
    /// themselves.
    fn grow_states(&self, layout: &mut Layout, spare: u64) -> u64 {
        let each = self.input.footprint.state_bytes;
        if each == 0 {
            return 0;
        }
        let tokens = self.input.tokens_total.div_ceil(self.input.sequences.max(1));
        let pages = self.cache_bytes(tokens.div_ceil(PAGE_TOKENS) + 1);
        let wanted = self.input.sequences.saturating_sub(layout.state_slots) as u64;
        let slots = wanted.min(spare / (each + pages));
        layout.state_slots += slots as usize;
        layout.states += slots * each;
        slots * each
    }

    /// Slots for experts within so many bytes, by block, and what they take.
    fn expert_slots(&self, tile: u64, bytes: u64) -> (Vec<usize>, u64) {
        steps::expert_slots(self.spec, tile, bytes, |bytes| self.slot(bytes))
    }

    /// Rows that a sweep should carry if memory allows.
    fn rows_wanted(&self) -> usize {
        self.input.rows_max.unwrap_or(ROWS_MAX).min(self.input.rows_useful).max(self.rows_least())
    }

    /// Rows without which nothing can be computed: where positions see those after them, a whole text rides on one sweep.
    fn rows_least(&self) -> usize {
        if self.spec.looks_ahead() { self.input.sequence_tokens_max.max(1) } else { 1 }
    }

    fn finish(&self, layout: Layout, budget: u64, minimum: u64) -> Plan {
        let mut tiles = steps::tiles(self.spec, layout.tile);
        let on_device = steps::pin(&mut tiles, layout.on_device, Home::Device);
        steps::pin(&mut tiles, layout.pinned, Home::Host);
        let uses = self.input.expert_use.as_ref();
        let hits = Hits::of(self.spec, uses);
        let part = |head: bool| {
            let streamed =
                tiles.iter().filter(|s| (s.block == self.spec.blocks.len()) == head && s.is_streamed());
            let matrices = self.spec.blocks.iter().flat_map(|block| block.linears()).filter(|_| !head);
            let matrices = matrices.map(|(_, linear)| &linear.weight);
            let matrices = matrices.chain(Some(&self.spec.head.weight).filter(|_| head));
            Part {
                streamed_bytes: streamed.map(|s| s.extent.bytes).sum(),
                weights: matrices.map(|m| m.rows as u64 * m.cols as u64).sum(),
            }
        };
        let (blocks, head) = (part(false), part(true));
        let mixtures = mixtures(self.spec, &layout.expert_slots, uses, &hits);
        let streamed = blocks.streamed_bytes + head.streamed_bytes;
        let resident = streamed == 0 && mixtures.iter().all(|m| m.streamed_bytes() == 0);
        let warm = |(block, slots): (usize, &usize)| {
            uses.map_or_else(Vec::new, |uses| uses.most_used(block, *slots))
        };
        let warm_experts = layout.expert_slots.iter().enumerate().map(warm).collect();
        let expert_hits = (!mixtures.is_empty() && !resident).then_some(hits);
        let cost = Cost::new(blocks, head, mixtures, self.machine);
        Plan {
            family: self.spec.family.to_owned(),
            parameters: self.spec.parameters,
            weight_bytes: self.sizes.weight_bytes,
            // A default budget is what the layout needs.
            budget_bytes: if self.input.budget_bytes.is_some() { budget } else { layout.total() },
            minimum_bytes: minimum.min(budget),
            pinned_bytes: layout.pinned + layout.experts + on_device,
            device_pinned_bytes: on_device,
            device_bytes: self.planned_on_device(&layout, on_device),
            device_budget_bytes: self.input.device.map(|memory| memory.budget_bytes),
            streamed_bytes_per_sweep: cost.read_bytes(1, 1).round() as u64,
            expected_sweep_bytes: [1, 8, 64].map(|r| (r, cost.read_bytes(r, r).round() as u64)).into(),
            ring_bytes: layout.ring(),
            ring_slots: layout.slots,
            slot_bytes: layout.slot,
            tile_bytes: layout.tile,
            kv_type: self.input.kv_type,
            kv_bytes_per_token: self.input.kv_bytes_per_token,
            kv_pages: layout.kv_pages,
            kv_bytes: layout.kv + self.draft_pages_bytes(&layout, layout.draft_rows),
            state_bytes_per_sequence: self.input.footprint.state_bytes,
            state_slots: layout.state_slots,
            state_bytes: layout.states,
            kept_rows: layout.kept_rows,
            kept_bytes: layout.kept,
            activation_bytes: layout.activations,
            overhead_bytes: layout.overhead + if layout.draft_rows > 0 { self.input.draft_bytes } else { 0 },
            context: self.input.sequence_tokens_max,
            rows_max: layout.rows,
            logit_rows_max: layout.logit_rows,
            draft_rows: layout.draft_rows,
            draft_model: None,
            rows_at_knee: cost.knee(),
            resident,
            expanded: layout.expanded,
            cost,
            steps: tiles,
            expert_hits,
            expert_slots: layout.expert_slots,
            warm_experts,
        }
    }

    fn activations(&self, rows: usize, logit_rows: usize) -> u64 {
        rows as u64 * self.input.footprint.row_bytes
            + logit_rows as u64 * self.input.footprint.logit_row_bytes
    }

    /// Pages of the KV cache, with the scores that attention over them needs.
    fn cache_bytes(&self, pages: usize) -> u64 {
        let Footprint { position_bytes, first_position_bytes, first_positions, .. } = self.input.footprint;
        let positions = pages * PAGE_TOKENS;
        positions as u64 * (self.input.kv_bytes_per_token + position_bytes)
            + positions.min(first_positions) as u64 * first_position_bytes
    }

    /// What pages for so many rows of guesses add to a cache.
    fn draft_pages_bytes(&self, layout: &Layout, rows: usize) -> u64 {
        self.cache_bytes(layout.kv_pages + rows.div_ceil(PAGE_TOKENS)) - self.cache_bytes(layout.kv_pages)
    }

    /// A tile of at least one row of the widest matrix, of the size the user names, else near `wanted`.
    fn tile(&self, wanted: u64) -> u64 {
        let wanted = self.input.tile_bytes.unwrap_or(wanted.clamp(TILE_BYTES_MIN, TILE_BYTES_MAX));
        wanted.max(self.sizes.row_bytes_max)
    }

    fn slot(&self, tile: u64) -> u64 {
        let aligned = self.machine.alignment.max(1);
        tile.next_multiple_of(aligned) + 2 * aligned
    }
}
