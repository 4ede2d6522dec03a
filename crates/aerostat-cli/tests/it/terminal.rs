//! A terminal that tests type on and read.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

/// Longer than anything takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A command on a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    /// The command's side, kept open so that it can be looked at when the command is gone.
    side: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Up to here everything was waited for.
    seen: usize,
}

impl Terminal {
    /// Starts a command on a terminal of so many columns.
    pub(crate) fn start(command: &Command, columns: u16) -> Self {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let side = || Stdio::from(pty.slave.try_clone().unwrap());
        // Ctrl-C reaches what has the terminal for its own.
        let mut session = Command::new("setsid");
        session.args(["--ctty"]).arg(command.get_program()).args(command.get_args());
        session.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        for (name, value) in command.get_envs() {
            session.env(name, value.unwrap_or_default());
        }
        let child = session.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, to) = (File::from(pty.master.try_clone().unwrap()), Arc::clone(&shown));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                to.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, keys: File::from(pty.master), side: pty.slave, shown, seen: 0 }
    }

    /// Types on it.
    pub(crate) fn keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// What was shown since the last time.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()[self.seen..]).into_owned()
    }

    /// Waits until this is shown, and gives what was shown up to it since the last time.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.shown();
            if let Some(at) = shown.find(text) {
                // Of bytes that are no text as many were replaced as can be: there are none up to here.
                self.seen += at + text.len();
                return shown[..at].to_owned();
            }
            assert!(begun.elapsed() < SOON, "{text:?} is not shown, but {shown:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a prompt that nothing stands behind.
    pub(crate) fn wait_for_prompt(&mut self) -> String {
        self.wait_for("\x1b[?2004h\x1b[?2026h")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        // `setsid` has become it.
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end; the terminal must be as it was.
    pub(crate) fn end(mut self) -> ExitStatus {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < SOON, "it goes on: {:?}", self.shown());
            thread::sleep(Duration::from_millis(10));
        };
        let flags = tcgetattr(&self.side).unwrap().local_flags;
        assert!(flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG), "{flags:?}");
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}
