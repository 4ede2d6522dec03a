"""The page in a browser: Debian's chromium, by Playwright. Opt-in.

    python crates/aerostat-serve/tests/page.py [AEROSTAT [FOLDER]]

AEROSTAT is the command (target/debug/aerostat); screenshots go to FOLDER (target/tmp). Needs `pip install playwright` and
the package chromium; nothing of the network.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from urllib.parse import parse_qs, urlparse

from playwright.sync_api import expect, sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[3]


def line(i):
    body = {"messages": [{"role": "user", "content": f"question {i}"}], "max_tokens": 6}
    return json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body})


def check(page, url, shots):
    page.goto(url)
    expect(page.locator("#trouble")).to_contain_text("key")
    page.once("dialog", lambda dialog: dialog.accept("sesame"))
    page.click("#key")
    expect(page.locator("#model")).to_have_text("chat", timeout=20_000)
    expect(page.locator("#trouble")).to_have_text("")
    page.fill("#prompt", "<b>Hello</b>")
    page.fill("#tokens", "5")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).not_to_be_empty(timeout=20_000)
    lines = "\n".join([*map(line, range(20)), line(99).replace("max_tokens", "novel")])
    page.set_input_files("#file", {"name": "in.jsonl", "mimeType": "text/plain", "buffer": lines.encode()})
    row = page.locator("#batches tr").first
    expect(row).to_contain_text("completed", timeout=60_000)
    expect(row).to_contain_text("20/21")
    with page.expect_download() as download:
        row.get_by_label("download results").click()
    assert len(pathlib.Path(download.value.path()).read_text().splitlines()) == 20
    page.set_input_files("#file", {"name": "bad.jsonl", "mimeType": "text/plain", "buffer": b"nothing"})
    expect(page.locator("#errors li").first).to_contain_text("bad.jsonl")
    # The line that failed is told, and so is a file that is no batch.
    expect(page.locator("#errors")).to_contain_text("line 21")
    expect(page.locator("#errors")).to_contain_text("novel")
    keyboard(page)
    cancels(page)
    thousands(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=shots / f"page-{scheme}.png", full_page=True)


def keyboard(page):
    """All that the page does is done without a pointer: Tab reaches it, Enter and arrows work it."""
    page.evaluate("document.activeElement.blur()")

    def tab_to(locator, most=400):
        for _ in range(most):
            page.keyboard.press("Tab")
            if locator.evaluate("node => node === document.activeElement"):
                return
        raise AssertionError(f"Tab never comes to {locator}")

    tab_to(page.locator("#theme"))
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") in ("dark", "light")
    page.evaluate("delete document.documentElement.dataset.theme")
    tab_to(page.locator("#drop"))
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    body = "\n".join(map(line, range(3)))
    chooser.value.set_files({"name": "keys.jsonl", "mimeType": "text/plain", "buffer": body.encode()})
    row = page.locator("#batches tr", has_text="3/3").first
    expect(row).to_contain_text("completed", timeout=60_000)
    tab_to(row.get_by_label("download results"))
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert len(pathlib.Path(download.value.path()).read_text().splitlines()) == 3
    tab_to(page.locator("#filter"))
    page.keyboard.press("ArrowDown")
    expect(page.locator("#filter")).to_have_value("interactive")
    page.keyboard.press("ArrowUp")
    tab_to(page.locator("#prompt"))
    page.keyboard.press("Control+A")
    page.keyboard.type("Again")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("7")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).not_to_be_empty(timeout=20_000)


def cancels(page):
    """A batch that takes long is cancelled by its button, with the keyboard."""
    body = {"messages": [{"role": "user", "content": "q"}], "max_tokens": 400, "ignore_eos": True}
    lines = [{"custom_id": f"c{i}", "method": "POST", "url": "/v1/chat/completions", "body": body} for i in range(300)]
    buffer = "\n".join(map(json.dumps, lines)).encode()
    page.set_input_files("#file", {"name": "long.jsonl", "mimeType": "text/plain", "buffer": buffer})
    row = page.locator("#batches tr", has_text="/300").first
    button = row.get_by_role("button", name="cancel batch")
    button.focus()
    page.keyboard.press("Enter")
    expect(row).to_contain_text("cancel", timeout=60_000)


def thousands(page):
    """Of 5,000 requests a page of 100 is asked for and shown, and the others can be reached."""
    asked = []

    def answer(route):
        query = parse_qs(urlparse(route.request.url).query)
        limit, offset = int(query["limit"][0]), int(query["offset"][0])
        asked.append((limit, offset))
        state = {"class": "interactive", "state": "decode", "position": None, "tokens": 3, "tokens_max": 64}
        state |= {"seconds": 7, "eta_seconds": 4000.0}
        data = [{"id": f"chatcmpl-{i}", **state} for i in range(offset, min(5000, offset + limit))]
        route.fulfill(json={"object": "list", "data": data, "total": 5000})

    page.route("**/v1/aerostat/requests?*", answer)
    expect(page.locator("#range")).to_have_text("1–100 of 5,000", timeout=10_000)
    begun = time.monotonic()
    page.get_by_label("Later requests").click()
    expect(page.locator("#requests tr").first).to_contain_text("chatcmpl-100")
    took = time.monotonic() - begun
    for _ in range(47):
        page.get_by_label("Later requests").press("Enter")
    expect(page.locator("#requests tr").first).to_contain_text("chatcmpl-4")
    assert page.locator("#requests tr").count() == 100 and {limit for limit, _ in asked} == {100}
    print(f"the next hundred of 5,000 requests after {took * 1000:.0f} ms")


def main():
    aerostat = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/debug/aerostat")
    shots = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "target/tmp")
    shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        keys = pathlib.Path(folder, "keys")
        keys.write_text("sesame\n")
        command = [aerostat, "serve", str(ROOT / "fixtures/chat"), "--port", "0", "--json", "--quiet"]
        command += ["--memory", "1GiB", "--data", folder + "/data", "--api-key-file", str(keys)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = json.loads(server.stdout.readline())["url"]
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page()
            complaints = []
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            check(page, url, shots)
            # The first looks had no key.
            complaints = [text for text in complaints if "401" not in text]
            assert not complaints, complaints
            browser.close()
        finally:
            server.terminate()
            server.wait(timeout=20)
    print("ok; screenshots in", shots)


main()
