//! The terminal while answers are written: what is typed meanwhile is not shown in between, and waits for the next prompt.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a person sits at both ends: what is typed comes from a terminal, and answers go to one.
pub(crate) fn attended() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Whether text may be dimmed on stdout.
pub(crate) fn dims() -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !plain && !is_plain()
}

/// Whether the terminal can only write on: it knows no sequences, and lines are not edited on it.
pub(crate) fn is_plain() -> bool {
    // As the line editor has it.
    const PLAIN: [&str; 3] = ["dumb", "cons25", "emacs"];
    std::env::var("TERM").is_ok_and(|term| PLAIN.iter().any(|plain| plain.eq_ignore_ascii_case(&term)))
}

/// Columns of the terminal of stdout, if that is one.
pub(crate) fn columns() -> Option<usize> {
    let (columns, _) = rustyline::DefaultEditor::new().ok()?.dimensions()?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// What asks the terminal to mark what is pasted, and to leave that.
const MARK_PASTE: &str = "\x1b[?2004h";
const LEAVE_PASTE: &str = "\x1b[?2004l";

/// Whether the terminal was asked to.
static MARKS: AtomicBool = AtomicBool::new(false);

/// While this lives, the terminal shows nothing of what is typed by itself, and keeps it; Ctrl-C and Ctrl-Z work. A line editor
/// may come between.
#[derive(Debug)]
pub(crate) struct Hushed(());

impl Drop for Hushed {
    fn drop(&mut self) {
        restore();
    }
}

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io::{self, Write};
    use std::os::fd::AsFd;
    use std::sync::{Mutex, PoisonError};

    use nix::sys::termios::{InputFlags, LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

    /// How the terminal was.
    static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

    pub(super) fn hush() -> bool {
        let Ok(before) = tcgetattr(io::stdin()) else { return false };
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON);
        // Ctrl-C throws nothing away that was typed before it.
        quiet.local_flags.insert(LocalFlags::NOFLSH);
        // Enter stays what the line editor reads for it.
        quiet.input_flags.remove(InputFlags::ICRNL);
        let done = tcsetattr(io::stdin(), SetArg::TCSANOW, &quiet).is_ok();
        if done {
            *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        }
        done
    }

    /// Past the lock of stdout, which whoever is stopped may hold. A terminal that is gone needs nothing.
    pub(super) fn send(sequence: &str) {
        let terminal = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let _ = terminal.and_then(|mut terminal| terminal.write_all(sequence.as_bytes()));
    }

    pub(super) fn restore() {
        let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(before) = before {
            // A terminal that is gone needs nothing.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &before);
        }
    }
}

#[cfg(not(unix))]
mod system {
    pub(super) fn hush() -> bool {
        false
    }

    pub(super) fn send(_: &str) {}

    pub(super) fn restore() {}
}

/// Hushes the terminal of stdin, if there is one and the system can.
pub(crate) fn hush() -> Option<Hushed> {
    // Without an editor the terminal itself shows what is typed.
    (io::stdin().is_terminal() && !is_plain() && system::hush()).then(|| {
        mark_paste();
        Hushed(())
    })
}

/// Has the terminal mark what is pasted while no line editor reads: the next one takes it as one text, however many lines it has,
/// and does not send each. To be said again after each, since an editor takes it back when it ends.
pub(crate) fn mark_paste() {
    if attended() && !is_plain() {
        MARKS.store(true, Ordering::SeqCst);
        system::send(MARK_PASTE);
    }
}

/// Makes the terminal as it was before it was hushed; before the process ends in whatever way.
pub(crate) fn restore() {
    if MARKS.swap(false, Ordering::SeqCst) {
        system::send(LEAVE_PASTE);
    }
    system::restore();
}
