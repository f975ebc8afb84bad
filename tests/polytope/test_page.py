"""The page in a real browser without a screen: it draws, it turns, it slices, and it asks nobody for anything."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from regauge.errors import InputError
from regauge.polytope import extract, network, page, pbody, save_page, smooth_mesh, train, train_deep

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine to open the page with")

PROBE = """<script>
window.addEventListener("load", () => {
  const report = {ready: document.documentElement.dataset.ready, name: $("name").textContent,
    facts: $("facts").textContent, frames: frames.length, triangles: +canvas.dataset.triangles,
    segments: +canvas.dataset.segments, painted: gl ? painted() : 0};
  const picture = () => { const p = new Uint8Array(4 * canvas.width * canvas.height);
    gl.readPixels(0, 0, canvas.width, canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, p);
    let h = 0; for (const v of p) h = (31 * h + v) | 0; return h; };
  const fire = (target, kind, options) => target.dispatchEvent(new PointerEvent(kind, {pointerId: 1, ...options}));
  const before = picture();
  fire(canvas, "pointerdown", {clientX: 500, clientY: 300});
  fire(canvas, "pointermove", {clientX: 560, clientY: 330}); fire(canvas, "pointerup", {});
  draw(); report.turned = picture() !== before;
  const still = picture(); draw(); report.steady = picture() === still;
  canvas.dispatchEvent(new WheelEvent("wheel", {deltaY: 400})); draw(); report.smaller = painted() < report.painted;
  const input = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("input")); draw(); };
  if (frames.length > 1) { input("frame", 0); report.first = $("facts").textContent; }
  if (dim === 4) {
    input("cut", 0.5); report.sliced = [+canvas.dataset.triangles, +canvas.dataset.segments];
    input("cut", 0.98); input("xw", 40); report.tip = +canvas.dataset.triangles; input("cut", 0.3);
    $("mode").value = "projection"; $("mode").dispatchEvent(new Event("change")); draw();
    report.projected = [+canvas.dataset.triangles, +canvas.dataset.segments];
  }
  $("edges").click(); draw();
  const out = document.createElement("pre"); out.id = "report"; out.textContent = JSON.stringify(report);
  document.body.append(out);
});
</script></body>"""


def opened(text, tmp_path):
    """What the probe says after the page was opened, dragged, zoomed and sliced."""
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", PROBE), encoding="utf-8")
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--window-size=1000,700", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="report">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def solid(report):
    assert report["ready"] == "drawn" and report["painted"] > 0.03
    assert report["turned"] and report["steady"] and report["smaller"]


@needs_browser
def test_solid_with_training(tmp_path):
    found = train(3, 6, frames=8)
    bodies = [extract(net, tolerance=1e-7) for net in found.path]
    report = opened(page(bodies, facts=[[("rms", str(i))] for i in range(len(bodies))]), tmp_path)
    solid(report)
    assert report["name"] == "Icosidodecahedron" and "30, 60, 32" in report["facts"] and "120" in report["facts"]
    assert report["frames"] == len(bodies) and report["triangles"] == 56 and report["segments"] == 60
    assert report["first"].startswith("rms0")


@needs_browser
def test_four_dimensions_by_slice_and_projection(tmp_path):
    report = opened(page(extract(train(4, 4).network)), tmp_path)
    solid(report)
    assert report["name"] == "16-cell" and report["projected"] == [0, 24]
    triangles, segments = report["sliced"]
    assert triangles > 0 and segments >= 12


@needs_browser
def test_plane_and_dented_bodies(tmp_path):
    solid(opened(page(extract(train(2, 4).network)), tmp_path))
    rng = np.random.default_rng(2)
    net = network([rng.normal(size=(6, 3)), rng.normal(size=(6, 6))], np.abs(rng.normal(size=6)), "abs")
    report = opened(page(extract(net)), tmp_path)
    solid(report)
    assert "no (star-shaped)" in report["facts"]


@needs_browser
def test_smooth_body(tmp_path):
    surface = smooth_mesh(pbody(np.eye(3), 4).gauge, 3)
    report = opened(page(surface, facts=[[("p", "4")]]), tmp_path)
    solid(report)
    assert report["triangles"] == 20 * 4**3 and report["segments"] == 0 and report["facts"].startswith("p4")


def test_page_is_self_contained_and_escaped(tmp_path):
    body = extract(train(3, 3).network)
    text = page(body, title="<script>alert(1)</script>", facts=[[("</script>", "x")]])
    assert "<script>alert" not in text and text.count("</script>") == 2
    assert not re.search(r"(src|href)\s*=|https?://|@import|fetch\(|XMLHttpRequest", text)
    path = save_page(body, tmp_path / "page.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(InputError, match="exists"):
        save_page(body, path)


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(InputError, match="unbounded"):
        page(extract(network([np.eye(3)], np.ones(3), "relu")))
    with pytest.raises(InputError, match="2, 3 or 4"):
        page(extract(network([np.eye(5)], np.ones(5), "abs")))
    with pytest.raises(InputError, match="one dimension"):
        page([extract(train(2, 3).network), extract(train(3, 3).network)])


def test_deep_training_has_a_path():
    found = train_deep(2, (3, 3), "abs", steps=50, points=100, frames=6)
    assert len(found.path) >= 4 and found.path[-1] is found.network
