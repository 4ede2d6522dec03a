"""Chat in tmux, at 60 and at 140 columns: what a person would see, printed to be looked at, and checked where it can be.

    cargo build && python crates/aerostat-cli/tests/chat.py [target/debug/aerostat] [MODEL]

MODEL is fixtures/chat unless another is named, such as demo. Needs tmux; asks no network with the fixture.
"""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
WIDE = "你好，世界 👩‍👩‍👧 schön 🎉 " * 4


class Screen:
    """A tmux server of its own with one window."""

    def __init__(self, columns, command, home):
        self.socket, self.columns = f"aerostat-{os.getpid()}-{columns}", columns
        environment = {"XDG_STATE_HOME": home, "AEROSTAT_CACHE": home, "AEROSTAT_CONFIG": "/dev/null", "HF_HUB_OFFLINE": "1"}
        variables = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in environment.items())
        self.tmux("-u", "new-session", "-d", "-x", str(columns), "-y", "30", f"{variables} {command}; echo ended with $?; sleep 60")

    def tmux(self, *args):
        done = subprocess.run(["tmux", "-L", self.socket, *args], capture_output=True, text=True, check=True)
        return done.stdout

    def text(self):
        return self.tmux("capture-pane", "-p", "-S", "-200")

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def paste(self, text):
        self.tmux("set-buffer", text)
        self.tmux("paste-buffer", "-p")

    def wait(self, what, seconds=60):
        end = time.time() + seconds
        while what not in self.text():
            if time.time() > end:
                raise SystemExit(f"{self.columns} columns: {what!r} does not come:\n{self.text()}")
            time.sleep(0.05)

    def settle(self):
        """Waits for an empty prompt."""
        end = time.time() + 60
        while self.text().rstrip("\n").split("\n")[-1].rstrip() != ">":
            if time.time() > end:
                raise SystemExit(f"{self.columns} columns: no prompt:\n{self.text()}")
            time.sleep(0.05)

    def close(self):
        self.tmux("kill-server")


def saved(screen, home):
    path = pathlib.Path(home) / f"talk-{screen.columns}.json"
    path.unlink(missing_ok=True)
    screen.type(f"/save {path}")
    screen.keys("Enter")
    screen.wait("messages to")
    screen.settle()
    return [message["content"] for message in json.loads(path.read_text())["messages"] if message["role"] == "user"]


def scenario(binary, model, columns):
    with tempfile.TemporaryDirectory() as home:
        flags = "--temperature 0 --ignore-eos --max-new-tokens 20000 --context 30000"
        screen = Screen(columns, f"{binary} chat {model} {flags}", home)
        screen.wait("Ctrl-D ends")
        screen.settle()
        # A wide line, edited in its middle; the answer is stopped, and what is typed meanwhile comes after it.
        screen.type(WIDE + "x")
        time.sleep(0.3)
        # Joined pictures are drawn one by one, so that nothing is torn where tmux and the editor count differently.
        assert "👩👩👧 schön" in screen.text(), screen.text()
        screen.keys("BSpace", "Home", "C-e", "Enter")
        screen.wait("decode")
        screen.type("typed ahead")
        time.sleep(0.5)
        shown = screen.text()
        assert "typed ahead" not in shown, shown
        screen.keys("C-c")
        screen.wait("> typed ahead")
        screen.keys("C-u")
        screen.settle()
        # Several lines that are pasted while an answer is written are one message, which is sent by Enter, or dropped.
        screen.type("again")
        screen.keys("Enter")
        time.sleep(1)
        screen.paste("first pasted\nsecond pasted\n")
        time.sleep(0.5)
        screen.keys("C-c")
        screen.wait("> first pasted\nsecond pasted")
        screen.keys("C-c")
        screen.settle()
        screen.type("/set max-new-tokens 8")
        screen.keys("Enter")
        screen.settle()
        screen.paste("def f():\n    return 1\n")
        screen.keys("Enter")
        screen.wait("stopped at 8 tokens")
        screen.settle()
        for line in ['"""', "one", "", 'two"""']:
            screen.type(line)
            screen.keys("Enter")
        time.sleep(1)
        screen.settle()
        screen.keys("Up")
        screen.wait('two"""')
        screen.keys("C-u", "C-k", "C-c")
        screen.wait("Ctrl-C again")
        screen.settle()
        messages = saved(screen, home)
        assert messages == [WIDE.strip(), "again", "def f():\n    return 1", "one\n\ntwo"], messages
        screen.type("/foo")
        screen.keys("Enter")
        screen.wait("no command /foo")
        screen.keys("C-d")
        screen.wait("ended with 0")
        print(f"--- {columns} columns ---\n{screen.text().rstrip()}\n")
        screen.close()


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/aerostat"
    for width in (60, 140):
        scenario(pathlib.Path(chosen).resolve(), sys.argv[2] if len(sys.argv) > 2 else ROOT / "fixtures/chat", width)
