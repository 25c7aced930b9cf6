"""What a reader does with a page, in headless Chromium."""

import pytest

from rlrefine.ablation.page import page as study_page
from rlrefine.report.page import page as run_page
from tests.ablation.studies import draw, make_study
from tests.report.runs import make_rows, make_run

pytestmark = pytest.mark.browser
KINDS = ("run", "runs", "study")
CONTRAST = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255).map(
      (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  return Math.min(...[...document.querySelectorAll("p, li, td, th, h1, h2, h3, a, summary, figcaption, span, strong")]
    .filter((node) => node.textContent.trim() && node.getClientRects().length).map((node) => {
      const [one, other] = [light(getComputedStyle(node).color), light(ground(node))];
      return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    }));
}"""
"""The least contrast of text to its ground, by the definition of WCAG 2.2."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A page of each kind, with evil words and real pictures."""
    place = tmp_path_factory.mktemp("pages")
    rows = make_rows(place / "rows")
    runs = [make_run(place, rows, name, shift=shift) for name, shift in (("one", 0.0), ("two", 0.5))]
    study = make_study(place / "study")
    draw(study.place, study.recipes, 64)
    texts = {
        "run": run_page(runs[:1]),
        "runs": run_page(runs),
        "study": study_page(study.recipes, study.summary, study.rows, study.place),
    }
    for kind, text in texts.items():
        (place / f"{kind}.html").write_text(text)
    return {kind: place / f"{kind}.html" for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_a_page_is_quiet_and_fits_and_can_be_read(kind, scheme, width, files, open_page):
    opened = open_page(files[kind], width, scheme)
    assert opened.said == []
    assert opened.asked == []
    assert opened.look("document.documentElement.scrollWidth") == width  # tables scroll by themselves
    assert opened.look(CONTRAST) >= 4.5
    dark = opened.look("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


def test_a_wide_window_shows_every_sample_of_a_group(files, open_page):
    opened = open_page(files["run"])
    strips = "[...document.querySelectorAll('.strips .strip')]"
    one_more = "strip.append(strip.children[0].cloneNode(true))"  # until there are a draft and eight samples
    assert opened.look(f"{strips}.length") > 0
    opened.look(f"{strips}.forEach((strip) => {{ while (strip.children.length < 9) {one_more} }})")
    assert opened.look(f"{strips}.every((strip) => strip.scrollWidth <= strip.clientWidth)")


def test_the_check_of_contrast_sees_pale_words(files, open_page):
    opened = open_page(files["run"])
    opened.look("document.querySelector('h2').style.color = '#bbb'")
    assert opened.look(CONTRAST) < 4.5


def test_the_slider_uncovers_the_draft(files, open_page):
    opened = open_page(files["run"])
    slider, after = opened.page.locator(".compare input").first, "getComputedStyle(document.querySelector('.after'))"
    assert opened.look(f"{after}.clipPath") == "inset(0px 0px 0px 50%)"
    slider.focus()
    for _ in range(10):
        opened.page.keyboard.press("ArrowRight")
    assert slider.input_value() == "60"
    assert opened.look(f"{after}.clipPath") == "inset(0px 0px 0px 60%)"
    box = slider.bounding_box()
    opened.page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    assert int(slider.input_value()) < 10
    assert opened.look("getComputedStyle(document.querySelectorAll('.after')[1]).clipPath").endswith("50%)")


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_enlarged_by_a_click_and_by_a_key(kind, files, open_page):
    opened = open_page(files[kind])
    button, dialog = opened.page.locator(".strip button.zoom").first, opened.page.locator("#zoom")
    small = button.locator("img")
    assert not dialog.is_visible()
    button.click()
    large = dialog.locator("img")
    assert dialog.is_visible()
    assert large.get_attribute("src") == small.get_attribute("src")
    assert large.get_attribute("alt") == small.get_attribute("alt") != ""
    assert large.bounding_box()["width"] > 1.5 * small.bounding_box()["width"]
    opened.page.keyboard.press("Escape")
    assert not dialog.is_visible()
    button.focus()
    opened.page.keyboard.press("Enter")
    assert dialog.is_visible()
    dialog.locator("button").click()
    assert not dialog.is_visible()
    assert opened.said == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_can_be_decoded(kind, files, open_page):
    opened = open_page(files[kind])
    broken = "[...document.images].filter((image) => image.src !== 'data:,' && !image.naturalWidth).map((i) => i.alt)"
    assert opened.look(broken) == []


def test_what_a_user_wrote_runs_nowhere_and_the_policy_stops_what_would(files, open_page):
    """A negative control: the same page with a foreign script and a foreign picture, both of which it must refuse."""
    text = files["run"].read_text()
    bad = files["run"].with_name("bad.html")
    bad.write_text(
        text.replace("<h1>", '<script>document.title = "run"</script><img src="http://127.0.0.1:9/a.png" alt="a"><h1>')
    )
    opened = open_page(bad)
    assert opened.page.title() == "one · rlrefine"
    assert len(opened.said) >= 2
    assert all("Content Security Policy" in said for said in opened.said)


def test_printed_both_pictures_lie_beside_each_other(files, open_page):
    opened = open_page(files["run"])
    opened.page.emulate_media(media="print")
    before, after = opened.page.locator(".both").first.locator("img").all()
    assert before.bounding_box()["x"] + before.bounding_box()["width"] <= after.bounding_box()["x"]
    assert not opened.page.locator(".compare input").first.is_visible()
