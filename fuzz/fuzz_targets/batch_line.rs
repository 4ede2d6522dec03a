//! Any bytes as a line of a batch file, read strictly and leniently.
#![no_main]

use std::cell::RefCell;

use aerostat::ModelFiles;
use aerostat_jobs::check_line;
use aerostat_openai::{LazyGrammars, Rules, Setting};

thread_local! {
    static SETTINGS: RefCell<[(Setting, LazyGrammars); 2]> = RefCell::new([false, true].map(|lenient| {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/chat");
        let files = ModelFiles::open(model.as_ref()).expect("the fixture is there");
        let rules = Rules { context: None, max_new_tokens: 16, seed: 0, lenient };
        (Setting::new(&files, "tiny", rules).expect("the fixture is whole"), LazyGrammars::default())
    }));
}

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    SETTINGS.with_borrow_mut(|settings| {
        for (setting, grammars) in settings {
            if let Err(refusal) = check_line(setting, grammars, 0, line) {
                assert!(refusal.message().chars().count() < 600);
            }
        }
    });
});
