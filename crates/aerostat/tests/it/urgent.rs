//! Requests that wait for nobody, beside others: those make room, and lose nothing but time.

use aerostat::{Observer, Options, Progress, Request, RunEnd};
use aerostat_testkit::fixture;

use crate::batch::{Journal, alike, alone, engine_with};

/// How often a sequence made room.
#[derive(Default)]
struct Preempted(u64);

impl Observer for Preempted {
    fn progress(&mut self, progress: &Progress) -> bool {
        self.0 = progress.totals.preempted;
        false
    }
}

/// One once waited for the end of whole answers where these might come to need all pages, or had all recurrent states.
#[test]
fn who_makes_room_for_urgent_requests_is_computed_again_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llama_gqa_bf16", "gemma3", "llama_dynamic", "qwen3_5_moe"] {
        let fixture = fixture(name);
        let fits =
            |r: Request| Request { max_new_tokens: r.max_new_tokens.min(128 - r.token_ids.len()), ..r };
        let requests: Vec<Request> = alike(&fixture).into_iter().map(fits).collect();
        let want = alone(&fixture, &Options::default(), &requests);
        for (spill, pages) in [(None, 12), (None, 9), (Some(folder.path().to_owned()), 12)] {
            let options = Options { spill, ..Options::default() };
            let mut engine = engine_with(&fixture, &options, &requests, |plan| {
                (plan.kv_pages, plan.state_slots) = (pages, plan.state_slots.min(3));
            });
            let (urgent, others): (Vec<_>, Vec<_>) = requests.iter().cloned().partition(|r| r.id % 4 == 1);
            let mut journal = Journal::new(others);
            journal.urgent = (0..).map(|i| 5 + 3 * i).zip(urgent).collect();
            let mut preempted = Preempted::default();
            assert_eq!(engine.run(&mut journal, None, &mut preempted).unwrap(), RunEnd::Done);
            assert_eq!(journal.results(), want, "{name}, {pages} pages");
            assert!(preempted.0 > 1, "{name}, {pages} pages: {} made room", preempted.0);
        }
    }
}
