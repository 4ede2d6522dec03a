//! Which rows ride on which sweep.
//!
//! Every sweep carries the decoding rows of all active sequences, then rows of prompts in the order of arrival, up to
//! the plan's rows. A sequence enters while there are rows for it and when the pages that its longest answer needs will
//! be free by the time it needs them; it leaves when it is finished. Pages that begin alike are computed and held once.
//!
//! Where pages may wait on disk, a sequence enters with the pages of its prompt and one more, and takes others as it
//! grows. When none are left, those that have most left to generate make room, and come back in the order of arrival
//! before anybody new enters.
//!
//! Where sequences have a recurrent state, each has a place for it as long as it is active, and nothing of the last two
//! paragraphs applies: a state is that of all positions up to one, and not of a page.
//!
//! Urgent sequences go first: their rows are taken before those of others, which miss a sweep if there is no room for all.
//! Where pages or states are lacking, others are put aside for them, and come in again before anybody new: from disk, or
//! computed again. While one waits, nobody else enters; while one is active, prompts of others fill sweeps to the knee only;
//! and what one needed is kept free for the next for some sweeps.
//!
//! What rows a sequence shares a sweep with, whose pages it reads and where it waited never changes its bits.

use std::io;

use aerostat_backend::{Backend, RowPlace, StateRow};
use aerostat_model::{Limits, Pages, Rotations};

use crate::Error;
use crate::ahead::Ahead;
use crate::expected::Expected;
use crate::prompt_cache::Kept;
use crate::room::{self, Claim};
use crate::rows::{Rows, Tap};
use crate::sequence::{Next, Sequence};
use crate::spill::Spill;
use crate::yielding::yielding;

/// The KV cache.
pub(crate) struct Memory<'a> {
    pub(crate) pages: &'a mut Pages,
    pub(crate) backend: &'a mut dyn Backend,
}

/// How sequences are scheduled.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Rows of one sequence in one sweep at most.
    pub(crate) chunk: usize,
    /// All rows of a sequence ride on one sweep, in which each sees all others.
    pub(crate) whole: bool,
    /// Rows that a sweep carries for free.
    pub(crate) knee: usize,
    /// Pages that begin alike are held once; how rotations depend on length.
    pub(crate) shares: Option<Rotations>,
    /// Pages may wait on disk.
    pub(crate) spill: Option<Spill>,
    /// Those of prompts are kept there.
    pub(crate) kept: Option<Kept>,
}

/// Pages are held for so much longer than if all were always in use.
const PACKING: f64 = 1.05;
/// Rows of a sweep, in knees, where there is enough of everything.
const ROWS_OF_KNEE: f64 = 1.4;
/// Prompts may always fill sweeps to this part of their rows, somebody urgent or not: with a knee of one row they would
/// hardly go on.
const URGENT_PART: usize = 8;
/// So many times the longest answer before the end, answers begin to enter longest first.
const ENDING: f64 = 1.5;

/// What is to come.
struct Outlook {
    /// Rows of a sweep if all that are left have as many.
    rows: f64,
    /// The last answers are about to begin: the longest ones must be first, or they go on alone in the end.
    ending: bool,
}

/// The sequences that are active, in order of arrival, and those that wait.
#[derive(Debug)]
pub(crate) struct Schedule<'t> {
    /// For room.
    waiting: Ahead<'t>,
    pub(crate) active: Vec<Sequence<'t>>,
    /// Those that gave their pages back and come in again before anybody new, in order of arrival: what was computed of
    /// them is on disk, or is computed again.
    aside: Vec<Sequence<'t>>,
    rules: Rules,
    arrivals: u64,
    /// Urgent ones.
    expected: Expected,
    /// Someone waited for pages when there last were rows for more.
    short: bool,
    /// More requests may come although there are none now.
    pub(crate) open_end: bool,
    /// Rows that were not computed because others had computed them.
    pub(crate) shared_rows: u64,
    /// Tokens of prompts that entered, and how often a sequence was put aside.
    pub(crate) prompt_tokens: u64,
    pub(crate) preempted: u64,
    /// Why pages of prompts could not be kept or read; to be told once.
    pub(crate) unkept: Option<io::Error>,
    /// Something of the kind was told in this run: once is enough.
    pub(crate) unkept_told: bool,
    /// Why pages were computed again and not read back; to be told once.
    pub(crate) trouble: Option<io::Error>,
    /// What of [`spilled_bytes`](Self::spilled_bytes) was counted elsewhere.
    pub(crate) counted: (u64, u64),
}

impl<'t> Schedule<'t> {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            waiting: Ahead::default(),
            active: Vec::new(),
            aside: Vec::new(),
            rules,
            arrivals: 0,
            expected: Expected::default(),
            short: false,
            open_end: false,
            shared_rows: 0,
            prompt_tokens: 0,
            preempted: 0,
            unkept: None,
            unkept_told: false,
            trouble: None,
            counted: (0, 0),
        }
    }

    /// Chooses the rows of the next sweep; none if there is nothing left to do.
    pub(crate) fn fill(
        &mut self,
        rows: &mut Rows,
        limits: Limits,
        memory: &mut Memory<'_>,
        next: Next<'_, 't>,
    ) -> Result<bool, Error> {
        rows.clear();
        self.waiting.refill(next)?;
        self.waiting.dry &= !self.open_end;
        match self.rules.spill.is_some() {
            true => self.make_room(memory),
            false => self.grow(memory.pages),
        }
        self.make_way(limits, memory);
        while self.restore(limits, memory) {}
        let outlook = self.outlook(limits, memory.pages);
        let urgent = self.expect(memory.pages);
        let kinds: Vec<_> = self.active.iter().map(|s| (s.urgent, s.decodes())).collect();
        let of = |kind| (0..kinds.len()).filter(|i| kinds[*i] == kind).collect::<Vec<_>>();
        let [first, second, third, last] =
            [(true, true), (true, false), (false, true), (false, false)].map(of);
        for index in first.into_iter().chain(second) {
            self.take_rows(index, rows, limits, memory.pages);
        }
        while self.waiting.has_urgent() && self.admit(rows, limits, memory, outlook.ending) {
            self.take_rows(self.active.len() - 1, rows, limits, memory.pages);
            self.waiting.refill(next)?;
        }
        for index in third {
            self.take_rows(index, rows, limits, memory.pages);
        }
        let rows_max = self.rows_due(&outlook, urgent, rows.tokens.len(), limits.rows_max);
        let limits = Limits { rows_max, ..limits };
        for index in last {
            self.take_rows(index, rows, limits, memory.pages);
        }
        while !self.waiting.has_urgent() && self.admit(rows, limits, memory, outlook.ending) {
            self.take_rows(self.active.len() - 1, rows, limits, memory.pages);
            self.waiting.refill(next)?;
        }
        Ok(!rows.tokens.is_empty())
    }

    /// Looks for urgent sequences, active or waiting, so that more of them are expected; whether there are some.
    fn expect(&mut self, pages: &Pages) -> bool {
        let all = self.active.iter().chain(&self.aside).chain(self.waiting.iter());
        let most = all.filter(|s| s.urgent).map(|s| pages.needed(s.capacity)).max();
        self.expected.sweep(most);
        most.is_some()
    }

    /// What is left to do of the sequences that are known.
    fn outlook(&self, limits: Limits, pages: &Pages) -> Outlook {
        let (mut rows, mut answers, mut held, mut longest) = (0, 0, 0, 0);
        for sequence in self.active.iter().chain(&self.aside).chain(self.waiting.iter()) {
            let left = if sequence.generates() { sequence.tokens_left() } else { 1 };
            rows += sequence.tokens.len().saturating_sub(sequence.computed) + left - 1;
            answers += left;
            // A page more and more as it grows.
            held += left * pages.needed(sequence.tokens.len() + left / 2);
            longest = longest.max(left);
        }
        let cache = pages.needed(pages.tokens()).max(1);
        let crowd = limits.logit_rows_max.min(limits.rows_max).max(1);
        let room = (held as f64 / cache as f64).max(answers as f64 / crowd as f64);
        let sweeps = room.max(rows as f64 / self.rules.knee.max(1) as f64 / ROWS_OF_KNEE);
        Outlook {
            rows: rows as f64
                / (PACKING * room.max(if self.waiting.dry { longest as f64 } else { 0.0 })).max(1.0),
            ending: self.waiting.dry && sweeps < ENDING * longest as f64,
        }
    }

    /// Rows that prompts may fill a sweep to, which has `rows` already. Where pages keep others from entering, sweeps to
    /// come have few rows; prompts are spread over them then, since rows up to the knee are free, and sweeps that are all
    /// alike are best beyond it. Where somebody urgent waits for the sweep's end, it takes no longer than its bytes do.
    fn rows_due(&self, outlook: &Outlook, urgent: bool, rows: usize, rows_max: usize) -> usize {
        let due = match (self.rules.whole, urgent, self.short) {
            (true, ..) | (_, false, false) => return rows_max,
            (_, true, _) => self.rules.knee.max(rows_max / URGENT_PART),
            (_, false, true) => self.rules.knee.max(outlook.rows as usize),
        };
        due.max(rows + 1).min(rows_max)
    }

    /// Whether some sequence is left.
    pub(crate) fn open(&self) -> bool {
        !self.waiting.is_empty() || !self.active.is_empty() || !self.aside.is_empty()
    }

    /// Lets one of those that wait in if there are rows and pages for it, of the urgent ones if there are some; whether it
    /// did.
    fn admit(&mut self, rows: &Rows, limits: Limits, memory: &mut Memory<'_>, ending: bool) -> bool {
        let full = rows.tokens.len() >= limits.rows_max || rows.logit_rows.len() >= limits.logit_rows_max;
        let urgent = self.waiting.has_urgent();
        if full || (!urgent && !self.aside.is_empty()) {
            self.short |= !self.aside.is_empty();
            return false;
        }
        let crowded = self.crowded(limits, urgent);
        let room = self.kept_free(urgent, memory.pages);
        for place in self.waiting.candidates(ending) {
            let fits = |s: &Sequence<'_>| s.urgent == urgent && !(crowded && s.generates());
            let Some(sequence) = self.waiting.get_mut(place).filter(|s| fits(s)) else { continue };
            let kept = restore(sequence, &mut self.rules, memory);
            self.unkept = self.unkept.take().or(kept.err());
            let entered = enter(sequence, &self.active, &self.rules, memory.pages, room);
            let Some(shared) = entered else { continue };
            let Some(mut sequence) = self.waiting.take(place) else { continue };
            self.shared_rows += shared as u64;
            self.prompt_tokens += sequence.prompt as u64;
            self.arrivals += 1;
            sequence.arrived = self.arrivals;
            self.active.push(sequence);
            return true;
        }
        self.short = !self.waiting.is_empty();
        false
    }

    /// Pages and states that one who enters leaves free for urgent ones that are expected.
    fn kept_free(&self, urgent: bool, pages: &Pages) -> (usize, usize) {
        match urgent || self.active.iter().all(|s| s.urgent) {
            true => (0, 0),
            false => self.expected.room(pages.needed(pages.tokens())),
        }
    }

    /// More sequences are being answered than can have logits in a sweep: others would hold pages and wait. Those that are
    /// urgent wait for others of their kind only.
    fn crowded(&self, limits: Limits, urgent: bool) -> bool {
        let counts = |s: &&Sequence<'_>| s.generates() && (s.urgent || !urgent);
        self.active.iter().filter(counts).count() >= limits.logit_rows_max.min(limits.rows_max)
    }

    /// Gives growing sequences the pages of their next rows, those first that have least left to generate. One that could
    /// keep others from ever being finished goes without for now.
    fn grow(&mut self, pages: &mut Pages) {
        let page_tokens = pages.page_tokens();
        let mut claims: Vec<Claim> = self.active.iter().map(|s| s.claim(pages)).collect();
        let mut order: Vec<usize> =
            (0..claims.len()).filter(|i| claims[*i].growth(page_tokens) > 0).collect();
        order.sort_by_key(|&i| self.active[i].due());
        let plenty = claims.iter().map(|c| c.growth(page_tokens)).sum::<usize>() <= pages.available();
        for index in order {
            let sequence = &mut self.active[index];
            let end = sequence.end().min(sequence.computed.saturating_add(self.rules.chunk));
            while sequence.pages.len() < pages.needed(end) {
                let before = claims[index];
                claims[index] = Claim { held: before.held + 1, own: before.own + 1, ..before };
                let left = pages.available().checked_sub(1);
                let safe = |left| plenty || room::safe(&mut claims.clone(), left, page_tokens);
                match if left.is_some_and(safe) { pages.take(1) } else { None } {
                    Some(page) => sequence.pages.extend(page),
                    None => {
                        claims[index] = before;
                        break;
                    }
                }
            }
        }
    }

    /// Gives growing sequences the pages of their next rows: first those that have least left to generate, at the cost
    /// of those that have most.
    fn make_room(&mut self, memory: &mut Memory<'_>) {
        let Some(spill) = &mut self.rules.spill else { return };
        let mut order: Vec<usize> = (0..self.active.len()).filter(|i| self.active[*i].generates()).collect();
        order.sort_by_key(|&i| self.active[i].due());
        let mut first = 0;
        while let Some(&index) = order.get(first) {
            let sequence = &mut self.active[index];
            let end = sequence.end().min(sequence.computed.saturating_add(self.rules.chunk));
            let more = memory.pages.needed(end).saturating_sub(sequence.pages.len());
            if let Some(taken) = memory.pages.take(more) {
                sequence.pages.extend(taken);
                first += 1;
            } else if let Some(last) = order.pop() {
                let victim = &mut self.active[last];
                if let Err(error) = put_away(victim, spill, memory) {
                    self.trouble = Some(error);
                }
            }
        }
        // Those in order have pages, as have all that are not to be answered.
        self.set_aside(|_, s| s.pages.is_empty() && s.end() > 0);
    }

    /// Puts sequences aside until those urgent ones have room that can get a place in the next sweep.
    fn make_way(&mut self, limits: Limits, memory: &mut Memory<'_>) {
        if !self.waiting.has_urgent() {
            return;
        }
        let taken = self.active.iter().filter(|s| s.urgent && s.generates()).count();
        let places = limits.logit_rows_max.min(limits.rows_max).saturating_sub(taken);
        let (waiting, spill) = (self.waiting.urgent().take(places), self.rules.spill.is_some());
        let aside = yielding(waiting, &self.active, memory.pages, spill);
        for &index in &aside {
            let sequence = &mut self.active[index];
            let put_away = match &mut self.rules.spill {
                Some(spill) => put_away(sequence, spill, memory),
                None => {
                    sequence.release(memory.pages);
                    Ok(())
                }
            };
            self.trouble = self.trouble.take().or(put_away.err());
        }
        self.set_aside(|index, _| aside.contains(&index));
    }

    /// Takes sequences out that have given their pages back, to come in again later.
    fn set_aside(&mut self, away: impl Fn(usize, &Sequence<'_>) -> bool) {
        let mut index = 0..;
        let is_away = |s: &mut Sequence<'t>| index.next().is_some_and(|index| away(index, s));
        let before = self.aside.len();
        self.aside.extend(self.active.extract_if(.., is_away));
        self.preempted += (self.aside.len() - before) as u64;
        self.aside.sort_by_key(|s| (!s.urgent, s.arrived));
    }

    /// Brings the first of those put aside back if there is room for it and for others to grow; whether it did.
    fn restore(&mut self, limits: Limits, memory: &mut Memory<'_>) -> bool {
        let urgent = self.aside.first().is_some_and(|s| s.urgent);
        let crowded = self.crowded(limits, urgent) || (!urgent && self.waiting.has_urgent());
        if crowded || self.aside.is_empty() {
            return false;
        }
        let kept = self.kept_free(urgent, memory.pages);
        let sequence = &mut self.aside[0];
        let (slots, computed) = (std::mem::take(&mut sequence.slots), std::mem::take(&mut sequence.computed));
        let Some(shared) = enter(sequence, &self.active, &self.rules, memory.pages, kept) else {
            (sequence.slots, sequence.computed) = (slots, computed);
            return false;
        };
        if let Some(spill) = &mut self.rules.spill {
            let held = shared / memory.pages.page_tokens();
            let mut places = slots.iter().zip(&sequence.pages).skip(held);
            match places.try_for_each(|(slot, page)| spill.load(memory.backend, *slot, *page)) {
                Ok(()) => sequence.computed = sequence.computed.max(computed),
                Err(error) => self.trouble = Some(error),
            }
            spill.free(slots);
        }
        let sequence = self.aside.remove(0);
        let place = self.active.partition_point(|s| s.arrived < sequence.arrived);
        self.active.insert(place, sequence);
        true
    }

    /// A sequence has computed the positions before `end`, as far as it has pages or can have some that nobody will need; gives
    /// how far that is.
    pub(crate) fn stretch(&mut self, index: usize, end: usize, pages: &mut Pages) -> usize {
        let page_tokens = pages.page_tokens();
        let growth: usize = self.active.iter().map(|s| s.claim(pages).growth(page_tokens)).sum();
        let wanted = pages.needed(end).saturating_sub(self.active[index].pages.len());
        if growth <= pages.available() && wanted > 0 {
            self.active[index].pages.extend(pages.take(wanted).into_iter().flatten());
        }
        let sequence = &mut self.active[index];
        let end = end.min(sequence.pages.len() * page_tokens).max(sequence.computed);
        sequence.computed = end;
        publish(sequence, pages, self.rules.shares.as_ref());
        end
    }

    /// Takes finished sequences out.
    pub(crate) fn take_done(&mut self, memory: &mut Memory<'_>) -> Vec<Sequence<'t>> {
        let mut done: Vec<Sequence<'t>> = self.active.extract_if(.., |s| s.done()).collect();
        for sequence in &mut done {
            if let (Some(kept), Some(rotations)) = (&mut self.rules.kept, &self.rules.shares)
                && sequence.failed.is_none()
            {
                let saved = kept.save(sequence, rotations, memory.pages.page_tokens(), memory.backend);
                self.unkept = self.unkept.take().or(saved.err());
            }
            sequence.release(memory.pages);
        }
        done
    }

    /// Takes out the sequence of this id, if it is here; pages that others may want stay known.
    pub(crate) fn cancel(&mut self, id: u64, pages: &mut Pages) -> Option<Sequence<'t>> {
        let active = self.active.iter().position(|s| s.id == id).map(|at| self.active.remove(at));
        let aside = || self.aside.iter().position(|s| s.id == id);
        let mut sequence = match active {
            Some(sequence) => sequence,
            None => match aside() {
                Some(at) => self.aside.remove(at),
                None => self.waiting.cancel(id)?,
            },
        };
        if let Some(spill) = &mut self.rules.spill {
            spill.free(std::mem::take(&mut sequence.slots));
        }
        sequence.release(pages);
        Some(sequence)
    }

    /// The pages that are kept on disk, for the next run.
    pub(crate) fn take_kept(&mut self) -> Option<Kept> {
        self.rules.kept.take()
    }

    /// Takes all sequences out.
    pub(crate) fn clear(&mut self, pages: &mut Pages) -> Vec<Sequence<'t>> {
        let all = self.active.drain(..).chain(self.aside.drain(..)).chain(self.waiting.drain());
        let mut all: Vec<Sequence<'t>> = all.collect();
        all.iter_mut().for_each(|s| s.release(pages));
        all
    }

    /// Whether sweeps will follow the one that `fill` chose, whatever its logits say.
    pub(crate) fn more(&self) -> bool {
        let unfinished = |s: &Sequence<'_>| s.computed < s.end() || s.generates() && s.tokens_left() > 1;
        !self.waiting.is_empty() || !self.aside.is_empty() || self.active.iter().any(unfinished)
    }

    /// Tokens that sequences may still take.
    pub(crate) fn tokens_left(&self) -> u64 {
        let all = self.active.iter().chain(&self.aside).chain(self.waiting.iter());
        all.map(|s| s.tokens_left() as u64).sum()
    }

    /// Bytes of pages written to disk, and read back.
    pub(crate) fn spilled_bytes(&self) -> (u64, u64) {
        self.rules.spill.as_ref().map_or((0, 0), |s| (s.written_bytes, s.read_bytes))
    }

    /// Adds the next rows of an active sequence, as far as limits allow.
    fn take_rows(&mut self, index: usize, rows: &mut Rows, limits: Limits, pages: &mut Pages) {
        let sequence = &mut self.active[index];
        if rows.tokens.len() >= limits.rows_max {
            return;
        }
        self.shared_rows += adopt(sequence, pages, self.rules.shares.as_ref()) as u64;
        let end = sequence.end().min(sequence.computed.saturating_add(self.rules.chunk));
        let end = end.min(sequence.pages.len() * pages.page_tokens());
        if sequence.computed >= end {
            return;
        }
        let left = end - sequence.computed;
        if self.rules.whole && (end < sequence.end() || rows.tokens.len() + left > limits.rows_max) {
            return;
        }
        rows.decodes |= sequence.decodes();
        rows.generates |= sequence.generates();
        let table = rows.table(&sequence.pages);
        let logits_from = sequence.logits_from().unwrap_or(usize::MAX);
        for position in sequence.computed..end {
            let (row, logits) = (rows.tokens.len(), position >= logits_from);
            if row >= limits.rows_max || (logits && rows.logit_rows.len() >= limits.logit_rows_max) {
                break;
            }
            if logits {
                rows.logit_rows.push(row as u32);
                rows.owners.push((index, position));
            }
            rows.taps.extend(sequence.layers(position).map(|layer| Tap { row, index, position, layer }));
            rows.tokens.push(sequence.tokens[position]);
            let last = if self.rules.whole { end - 1 } else { position };
            rows.places.push(RowPlace { last: last as u32, ..RowPlace::new(position as u32, table) });
            rows.types.push(u32::from(position >= sequence.second));
            rows.lengths.push(sequence.prompt.max(position + 1) as u32);
            let state = sequence.state.filter(|_| pages.keeps_states());
            let state = state.map(|slot| StateRow { slot, position: position as u32 });
            rows.states.extend(state);
            rows.given += u64::from(!sequence.generates());
            sequence.computed = position + 1;
        }
        publish(sequence, pages, self.rules.shares.as_ref());
    }
}

/// Brings pages of a prompt back that were kept on disk: as idle ones, which the sequence finds when it enters.
fn restore(sequence: &Sequence<'_>, rules: &mut Rules, memory: &mut Memory<'_>) -> io::Result<()> {
    match (&mut rules.kept, &rules.shares) {
        (Some(kept), Some(rotations)) => kept.restore(sequence, rotations, memory.pages, memory.backend),
        _ => Ok(()),
    }
}

/// Takes the pages that a sequence begins with, if it and those that are active will always have pages to go on with;
/// gives the number of its rows that others computed.
fn enter(
    sequence: &mut Sequence<'_>,
    active: &[Sequence<'_>],
    rules: &Rules,
    pages: &mut Pages,
    (kept_pages, kept_states): (usize, usize),
) -> Option<usize> {
    let shared = adopt(sequence, pages, rules.shares.as_ref());
    let page_tokens = pages.page_tokens();
    let is_back = sequence.arrived > 0;
    let (positions, spare) = match rules.spill {
        Some(_) if is_back => (sequence.tokens.len(), active.len() + kept_pages),
        Some(_) if sequence.urgent => (sequence.tokens.len() + page_tokens, 0),
        Some(_) => (sequence.tokens.len() + page_tokens, active.len() + kept_pages),
        None => (sequence.tokens.len(), kept_pages),
    };
    let more = pages.needed(positions.min(sequence.capacity)).saturating_sub(sequence.pages.len());
    sequence.state = if pages.states_available() > kept_states { pages.take_state() } else { None };
    let room = sequence.state.is_some() && pages.available() >= more + spare;
    let taken = if room { pages.take(more) } else { None };
    if let Some(taken) = taken {
        sequence.pages.extend(taken);
        let claims = active.iter().chain([&*sequence]).map(|s| s.claim(pages)).collect::<Vec<_>>();
        if rules.spill.is_some()
            || room::fits(&claims, pages.available().saturating_sub(kept_pages), page_tokens)
        {
            return Some(shared);
        }
    }
    sequence.release(pages);
    None
}

/// Takes over pages that others have computed or compute in this sweep, as far as no result of their rows is wanted;
/// gives the number of their rows. Every layer's keys and values are stored before any row attends to them, so that
/// pages of this very sweep will do.
fn adopt(sequence: &mut Sequence<'_>, pages: &mut Pages, shares: Option<&Rotations>) -> usize {
    let Some(rotations) = shares else { return 0 };
    let (page_tokens, before) = (pages.page_tokens(), sequence.computed);
    while !sequence.apart
        && sequence.computed == sequence.known * page_tokens
        && sequence.computed + page_tokens <= sequence.results_from()
    {
        let found = sequence.next_page(page_tokens, rotations).and_then(|(b, tokens)| pages.find(b, tokens));
        let Some(page) = found else { break };
        pages.hold(page);
        match sequence.pages.get_mut(sequence.known) {
            Some(own) => pages.release([std::mem::replace(own, page)]),
            None => sequence.pages.push(page),
        }
        sequence.known += 1;
        sequence.computed += page_tokens;
    }
    sequence.computed - before
}

/// Lets others know of pages that are full once the sweep at hand is done.
fn publish(sequence: &mut Sequence<'_>, pages: &mut Pages, shares: Option<&Rotations>) {
    let Some(rotations) = shares else { return };
    let page_tokens = pages.page_tokens();
    while !sequence.apart && (sequence.known + 1) * page_tokens <= sequence.computed {
        let next = sequence.next_page(page_tokens, rotations);
        let published = next
            .is_some_and(|(before, tokens)| pages.publish(sequence.pages[sequence.known], before, tokens));
        sequence.apart = !published;
        sequence.known += usize::from(published);
    }
}

/// Writes the pages of a sequence to disk and gives them back. If that fails, they will be computed again.
fn put_away(sequence: &mut Sequence<'_>, spill: &mut Spill, memory: &mut Memory<'_>) -> io::Result<()> {
    let (computed, used) = (sequence.computed, memory.pages.needed(sequence.computed));
    let saved = spill.save(memory.backend, &sequence.pages[..used]);
    sequence.release(memory.pages);
    sequence.slots = saved?;
    sequence.computed = computed;
    Ok(())
}

#[cfg(test)]
mod tests;
