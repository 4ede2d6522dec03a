//! The thread that compiles grammars, which takes up to seconds each: sweeps go on meanwhile.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use aerostat::Constraint;
use aerostat_openai::{LazyGrammars, Refusal, Setting, Shape};

/// A grammar, or why there is none.
type Compiled = Result<Box<dyn Constraint>, Refusal>;

/// Compiles grammars in the order in which they are asked for. The thread begins with the first.
#[derive(Default)]
pub(crate) struct Compiler {
    tasks: Option<Sender<(Shape, Sender<Compiled>)>>,
}

impl Compiler {
    /// Asks for the grammar of a shape. Always give the same setting.
    pub(crate) fn ask(&mut self, setting: &Arc<Setting>, shape: &Shape) -> Coming {
        let (answer, coming) = channel();
        if self.tasks.is_none() {
            self.tasks = start(Arc::clone(setting)).ok();
        }
        // Where there is no thread the answer's sender is dropped, which is told to whoever waits.
        if let Some(tasks) = &self.tasks {
            let _ = tasks.send((shape.clone(), answer));
        }
        Coming(coming)
    }
}

/// A grammar that was asked for.
pub(crate) struct Coming(Receiver<Compiled>);

impl Coming {
    /// One that nobody compiles.
    pub(crate) fn never() -> Self {
        Self(channel().1)
    }

    /// What came of it, waited for.
    pub(crate) fn wait(self) -> Compiled {
        self.0.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// The same, if it comes within a time.
    pub(crate) fn within(&self, time: Duration) -> Option<Compiled> {
        match self.0.recv_timeout(time) {
            Ok(compiled) => Some(compiled),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(gone())),
        }
    }
}

fn start(setting: Arc<Setting>) -> io::Result<Sender<(Shape, Sender<Compiled>)>> {
    let (tasks, inbox) = channel::<(Shape, Sender<Compiled>)>();
    let work = move || {
        let mut grammars = LazyGrammars::default();
        for (shape, answer) in inbox {
            let compile = AssertUnwindSafe(|| grammars.constraint(&setting, &shape));
            let compiled = catch_unwind(compile).unwrap_or_else(|_| {
                grammars = LazyGrammars::default();
                Err(Refusal::value("response_format", "the grammar cannot be used: compiling it failed"))
            });
            // Nobody waits for it any more.
            let _ = answer.send(compiled.map(|grammar| Box::new(grammar) as Box<dyn Constraint>));
        }
    };
    thread::Builder::new().name("grammars".to_owned()).spawn(work).map(|_| tasks)
}

fn gone() -> Refusal {
    Refusal::defect("there is no thread that compiles grammars")
}
