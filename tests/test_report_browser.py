"""The pages in a real browser, at the width of a phone and of a laptop. Skipped where there is no Chromium."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_up_results import made_up_run, read, write

from metalora.jobs import run
from metalora.jobs.benchmark.report import benchmark_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.skipif(BROWSER is None, reason="needs Chromium (apt-get install chromium)"), pytest.mark.slow]

# What sticks out of the window: the page itself runs nothing.
LOOK = """
addEventListener('load', () => {
  const place = e => e.getBoundingClientRect(), name = e => e.tagName + ': ' + e.textContent.trim().slice(0, 40);
  document.querySelectorAll('details').forEach(d => d.open = true);
  const wide = [...document.querySelectorAll('body *')].filter(
    e => place(e).right > innerWidth + 1 && place(e).width && !e.closest('thead')).map(name);
  const scroll = document.documentElement.scrollWidth;
  parent.postMessage(JSON.stringify({width: innerWidth, scroll, wide}), '*');
});
"""


def seen(page: Path, width: int, folder: Path) -> dict:
    """What the browser finds in a frame of this width: its windows cannot be as narrow as a phone."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    (folder / "page.html").write_text(text.replace("</head>", f"<script>{LOOK}</script></head>"), encoding="utf-8")
    (folder / "frame.html").write_text(
        "<pre id=seen></pre><script>onmessage = e => document.getElementById('seen').textContent = e.data</script>"
        f"<iframe src=page.html style='border:0; width:{width}px; height:900px'></iframe>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", "--virtual-time-budget=8000"]
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [str(BROWSER), *flags, profile, "--dump-dom", (folder / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = made_up_run(tmp_path_factory.mktemp("made_up") / "one", 6, 2, 1)
    record = read(made)  # the names that a user may choose are as long as they like
    record["variants"][1]["label"] = "a_method_with_a_name_of_one_word_that_does_not_fit_a_phone_" * 2
    record["variants"][2]["missing"] = ["external/" + "x" * 150 + ".png"]
    record["benchmark"]["prompts"][0]["text"] += " " + "y" * 150
    write(made, record)
    return run(benchmark_report(made)).page


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out(width: int, page: Path, tmp_path: Path):
    found = seen(page, width, tmp_path)
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["wide"] == []
