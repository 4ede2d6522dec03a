use crate::Silent;
use aerostat_backend::reference::Reference;
use aerostat_backend::{KvElement, KvLayout};

use crate::request::{Request, Want};
use crate::sequence::Ask;

use super::*;

const LIMITS: Limits = Limits { rows_max: 6, logit_rows_max: 2, states: 0 };

fn sequence(id: u64, tokens: usize, max_new_tokens: usize, want: Want) -> Sequence<'static> {
    let request = Request { id, token_ids: vec![7; tokens], max_new_tokens, want, ..Request::default() };
    Sequence::new(request, None, &mut Silent).unwrap()
}

fn rules(chunk: usize) -> Rules {
    Rules { chunk, whole: false, knee: 1, shares: None, spill: None, kept: None }
}

fn memory<'a>(pages: &'a mut Pages, backend: &'a mut Reference) -> Memory<'a> {
    Memory { pages, backend }
}

/// A backend with a cache of so many pages of 16 positions.
fn with_cache(pages: usize) -> Reference {
    let mut backend = Reference::new();
    let layout = KvLayout {
        keys: KvElement::F32,
        values: KvElement::F32,
        key_widths: vec![2],
        value_widths: vec![2],
        heads: vec![1],
        page_tokens: 16,
        pages,
    };
    backend.kv_allocate(&layout).unwrap();
    backend
}

/// Takes a token for every sequence whose last row has logits.
fn answer(schedule: &mut Schedule<'_>, rows: &Rows) {
    let mut sampler = crate::sampler::Sampler::default();
    for &(index, position) in &rows.owners {
        schedule.active[index].take_logits(position, &[0.0, 1.0], &mut sampler, &mut Silent);
    }
}

#[test]
fn decoding_rows_come_first_and_prompts_fill_the_rest() {
    let mut coming = vec![sequence(1, 9, 4, Want::Generate), sequence(0, 3, 4, Want::Generate)];
    let mut next = |ask| Ok(if ask == Ask::Any { coming.pop() } else { None });
    let mut schedule = Schedule::new(rules(usize::MAX));
    let (mut rows, mut pages) = (Rows::default(), Pages::new(10, 16));
    let mut backend = Reference::new();
    assert!(schedule.fill(&mut rows, LIMITS, &mut memory(&mut pages, &mut backend), &mut next).unwrap());
    assert_eq!((rows.tokens.len(), rows.owners.as_slice()), (6, &[(0, 2)][..]));
    answer(&mut schedule, &rows);
    assert!(schedule.fill(&mut rows, LIMITS, &mut memory(&mut pages, &mut backend), &mut next).unwrap());
    assert_eq!(rows.tokens, [1, 7, 7, 7, 7, 7]);
    assert!(rows.decodes && schedule.more());
    assert_eq!(rows.owners, [(0, 3)]);
}

/// A batch of answers of 50 tokens that never ends, and urgent requests of one token beside it.
struct Crowd {
    schedule: Schedule<'static>,
    pages: Pages,
    limits: Limits,
    rows: Rows,
    backend: Reference,
    id: u64,
}

impl Crowd {
    fn new(pages: usize, limits: Limits, rules: Rules) -> Self {
        let mut schedule = Schedule::new(rules);
        schedule.open_end = true;
        let backend = with_cache(pages);
        let pages = Pages::new(pages, 16);
        Self { schedule, pages, limits, rows: Rows::default(), backend, id: 1000 }
    }

    /// Sweeps once; gives who was finished.
    fn sweep(&mut self, mut urgent: Option<u64>) -> Vec<u64> {
        let next = &mut |ask| {
            self.id += 1;
            Ok(match ask {
                Ask::Urgent => urgent.take().map(|id| {
                    let mut one = sequence(id, 20, 1, Want::Generate);
                    one.urgent = true;
                    one
                }),
                Ask::Any => Some(sequence(self.id, 20, 50, Want::Generate)),
            })
        };
        let mut memory = memory(&mut self.pages, &mut self.backend);
        self.schedule.fill(&mut self.rows, self.limits, &mut memory, next).unwrap();
        answer(&mut self.schedule, &self.rows);
        let done = self.schedule.take_done(&mut memory);
        done.iter().map(|s| s.id).filter(|id| *id < 1000).collect()
    }
}

/// Requests that wait for nobody once waited for the end of whole answers, where a batch had all places.
#[test]
fn an_urgent_request_is_answered_by_the_next_sweep_though_a_batch_has_all_places() {
    let limits = Limits { rows_max: 64, logit_rows_max: 16, states: 0 };
    let mut crowd = Crowd::new(200, limits, Rules { knee: 64, ..rules(usize::MAX) });
    (0..40).for_each(|_| drop(crowd.sweep(None)));
    assert_eq!(crowd.schedule.active.len(), 16);
    for id in 0..100 {
        assert_eq!(crowd.sweep(Some(id)), [id]);
        // The batch goes on in all other places; some answers may just have been finished.
        let places = crowd.schedule.active.len();
        assert!((8..=16).contains(&places), "{places} after {id}");
    }
}

/// It once waited for the end of answers, which a model of real size has hundreds of sweeps later.
#[test]
fn an_urgent_request_is_answered_by_the_next_sweep_though_a_batch_may_need_all_pages() {
    let limits = Limits { rows_max: 100, logit_rows_max: 100, states: 0 };
    let mut crowd = Crowd::new(40, limits, rules(usize::MAX));
    for id in 0..20 {
        (0..30).for_each(|_| drop(crowd.sweep(None)));
        assert_eq!(crowd.sweep(Some(id)), [id]);
    }
    // What it needed was free for the next.
    assert_eq!(crowd.schedule.preempted, 1);
}

#[test]
fn who_made_room_comes_back_before_anybody_new_and_goes_on_where_it_was() {
    let limits = Limits { rows_max: 100, logit_rows_max: 100, states: 0 };
    let mut crowd = Crowd::new(11, limits, rules(usize::MAX));
    (0..10).for_each(|_| drop(crowd.sweep(None)));
    let ids = |crowd: &Crowd| crowd.schedule.active.iter().map(|s| s.id).collect::<Vec<_>>();
    let before = ids(&crowd);
    assert_eq!(crowd.sweep(Some(7)), [7]);
    let aside = crowd.schedule.aside.iter().map(|s| (s.id, s.tokens.len(), s.computed)).collect::<Vec<_>>();
    assert_eq!(aside, [(*before.last().unwrap(), 30, 0)]);
    let back = (0..100).find(|_| {
        crowd.sweep(None);
        crowd.schedule.aside.is_empty()
    });
    let found = crowd.schedule.active.iter().find(|s| Some(&s.id) == before.last());
    assert!(back.is_some() && found.is_some_and(|s| s.tokens.len() >= 30), "{found:?}");
}

#[test]
fn where_pages_may_wait_on_disk_a_batch_makes_room_for_an_urgent_request() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { rows_max: 100, logit_rows_max: 100, states: 0 };
    let rules = Rules { spill: Some(Spill::new(folder.path())), ..rules(usize::MAX) };
    let mut crowd = Crowd::new(40, limits, rules);
    for id in 0..100 {
        (0..3).for_each(|_| drop(crowd.sweep(None)));
        assert_eq!(crowd.sweep(Some(id)), [id]);
    }
}

#[test]
fn beside_an_urgent_request_prompts_of_others_fill_sweeps_to_the_knee_only() {
    let limits = Limits { rows_max: 100, logit_rows_max: 100, states: 0 };
    let mut crowd = Crowd::new(400, limits, Rules { knee: 30, ..rules(usize::MAX) });
    crowd.sweep(None);
    assert_eq!(crowd.rows.tokens.len(), 100);
    crowd.sweep(Some(1));
    assert_eq!(crowd.rows.tokens.len(), 30);
    crowd.sweep(None);
    assert_eq!(crowd.rows.tokens.len(), 100);
}

#[test]
fn a_sequence_waits_until_its_longest_answer_has_pages() {
    let mut coming: Vec<_> = (0..3).rev().map(|i| sequence(i, 10, 7, Want::Generate)).collect();
    let mut next = |ask| Ok(if ask == Ask::Any { coming.pop() } else { None });
    let limits = Limits { rows_max: 100, logit_rows_max: 100, states: 0 };
    let mut schedule = Schedule::new(rules(usize::MAX));
    let (mut rows, mut pages) = (Rows::default(), Pages::new(2, 16));
    let mut backend = Reference::new();
    schedule.fill(&mut rows, limits, &mut memory(&mut pages, &mut backend), &mut next).unwrap();
    assert_eq!(schedule.active.len(), 2);
    schedule.active[0].failed = Some(Error::interrupted());
    assert_eq!(schedule.take_done(&mut memory(&mut pages, &mut backend)).len(), 1);
    schedule.fill(&mut rows, limits, &mut memory(&mut pages, &mut backend), &mut next).unwrap();
    assert_eq!(schedule.active.iter().map(|s| s.id).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn those_with_most_left_make_room_and_come_back_before_anybody_new() {
    let folder = tempfile::tempdir().unwrap();
    let mut coming: Vec<_> =
        [(2, 5), (1, 40), (0, 60)].map(|(id, answer)| sequence(id, 10, answer, Want::Generate)).into();
    let mut next = |ask| Ok(if ask == Ask::Any { coming.pop() } else { None });
    let limits = Limits { rows_max: 100, logit_rows_max: 100, states: 0 };
    let spill = Some(Spill::new(folder.path()));
    let mut schedule = Schedule::new(Rules { spill, ..rules(usize::MAX) });
    let (mut rows, mut pages) = (Rows::default(), Pages::new(5, 16));
    let mut backend = with_cache(5);
    let mut active: Vec<Vec<u64>> = Vec::new();
    while schedule.fill(&mut rows, limits, &mut memory(&mut pages, &mut backend), &mut next).unwrap() {
        let ids: Vec<u64> = schedule.active.iter().map(|s| s.id).collect();
        if active.last() != Some(&ids) {
            active.push(ids);
        }
        answer(&mut schedule, &rows);
        schedule.take_done(&mut memory(&mut pages, &mut backend));
    }
    // Two have room for a start; then the one with 40 tokens to go grows at the cost of the one with 60, which comes
    // back when that is done; only then the third may enter.
    assert_eq!(active, [vec![0, 1], vec![1], vec![0, 2], vec![0]]);
    let page_bytes = 2 * 16 * 2 * 4;
    assert_eq!(schedule.spilled_bytes(), (2 * page_bytes, 2 * page_bytes));
    assert!(!schedule.open() && pages.available() == 5);
}

#[test]
fn scored_rows_are_bounded_by_logit_rows_and_chunks() {
    let want = Want::Score { from: 1, logits_last: true };
    for (chunk, wanted) in [(usize::MAX, vec![2, 2, 1]), (1, vec![1, 1, 1, 1, 1])] {
        let mut coming = vec![sequence(0, 5, 0, want)];
        let mut next = |ask| Ok(if ask == Ask::Any { coming.pop() } else { None });
        let mut schedule = Schedule::new(rules(chunk));
        let (mut rows, mut pages) = (Rows::default(), Pages::new(2, 16));
        let mut backend = Reference::new();
        let mut taken = Vec::new();
        while schedule.fill(&mut rows, LIMITS, &mut memory(&mut pages, &mut backend), &mut next).unwrap() {
            taken.push(rows.tokens.len());
        }
        assert_eq!(taken, wanted);
    }
}
