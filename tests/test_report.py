"""The report of a run: its verdicts, its page and its picture."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image

from keras_lottery.experiments import report
from keras_lottery.experiments.store import Store


def record(kind, round, density, accuracy, **changes):
    return {
        "kind": kind,
        "round": round,
        "density": density,
        "early_stop_test_accuracy": accuracy,
        "early_stop_epoch": 2,
        "test_accuracy": accuracy,
        "val_accuracy": accuracy,
        "seconds": 1.5,
        **changes,
    }


def ladder(kind, *accuracies, first=0):
    """Rounds `first`, ... at densities 1, 1/2, 1/4, ..."""
    return [record(kind, r, 0.5**r, a) for r, a in enumerate(accuracies, start=first)]


# With a dense accuracy of 0.9 and 200 test images the margin is sqrt(2 * 0.09 / 200) = 0.03.


def only(*accuracies):
    (found,) = report.verdicts(ladder("ticket", *accuracies), n_test=200)
    return found


def test_the_margin_is_one_standard_error_of_a_difference():
    assert only(0.9).margin == pytest.approx(0.03)
    (other,) = report.verdicts(ladder("ticket", 0.5), n_test=5000)
    assert other.margin == pytest.approx(0.01)


def test_a_ticket_matches_down_to_the_last_density_at_which_it_does():
    found = only(0.9, 0.92, 0.88, 0.86, 0.5)
    assert (found.kind, found.matches_to, found.falls_at) == ("ticket", 0.25, 0.125)
    assert found.sentence() == (
        "ticket: within 3.0 points of the dense accuracy down to 25.0% density, below from 12.5% on"
    )


def test_a_fall_before_a_return_is_told():
    found = only(0.9, 0.86, 0.9, 0.8)
    assert (found.matches_to, found.falls_at, found.exceptions) == (0.25, 0.125, 1)
    assert found.sentence().endswith(
        "down to 25.0% density (but for 1 denser round), below from 12.5% on"
    )


def test_a_ticket_that_never_falls_says_so():
    found = only(0.9, 0.9, 0.9)
    assert (found.matches_to, found.falls_at) == (0.25, None)
    assert found.sentence().endswith("down to 25.0% density, the last round")


def test_a_control_that_never_matches_says_so():
    rows = ladder("ticket", 0.9, 0.9) + ladder("reinitialize", 0.8, 0.85, first=1)
    _, found = report.verdicts(rows, n_test=200)
    assert (found.matches_to, found.falls_at) == (None, 0.5)
    assert found.sentence() == "reinitialize: never within 3.0 points of the dense accuracy"


def test_a_control_is_measured_by_the_dense_network_not_by_its_own_first_round():
    rows = ladder("ticket", 0.9, 0.9, 0.9) + ladder("random_mask", 0.88, 0.86, first=1)
    _, found = report.verdicts(rows, n_test=200)
    assert (found.matches_to, found.falls_at) == (0.5, 0.25)


def test_verdicts_use_the_early_stop_and_not_the_end():
    rows = ladder("ticket", 0.9, 0.9)
    rows[1]["test_accuracy"] = 0.1
    assert report.verdicts(rows, n_test=200)[0].falls_at is None


def test_a_perfect_dense_network_is_matched_by_perfect_rounds_alone():
    found = report.verdicts(ladder("ticket", 1.0, 1.0, 0.998), n_test=500)[0]
    assert (found.matches_to, found.falls_at) == (0.5, 0.25)


@given(st.permutations(range(5)))
def test_the_order_of_lines_does_not_matter(order):
    rows = ladder("ticket", 0.9, 0.9, 0.88, 0.8, 0.7)
    (found,) = report.verdicts([rows[i] for i in order], n_test=200)
    assert (found.matches_to, found.falls_at) == (0.25, 0.125)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 10_000))
def test_verdicts_say_what_they_promise(accuracies, n_test):
    (found,) = report.verdicts(ladder("ticket", *accuracies), n_test)
    good = [a >= accuracies[0] - found.margin for a in accuracies]
    assert found.matches_to == min(0.5**i for i, ok in enumerate(good) if ok)
    assert good[0] and found.exceptions == sum(
        not ok for i, ok in enumerate(good) if 0.5**i > found.matches_to
    )
    below = [0.5**i for i in range(len(good)) if 0.5**i < found.matches_to]
    assert found.falls_at == max(below, default=None)


def test_kinds_are_the_tickets_first_and_then_as_they_came_each_densest_first():
    rows = [
        *ladder("shuffle_mask", 0.5, 0.4, first=1)[::-1],
        *ladder("reinitialize", 0.5, first=1),
        *ladder("ticket", 0.9, 0.9, 0.9)[::-1],
    ]
    found = report.by_kind(rows)
    assert list(found) == ["ticket", "shuffle_mask", "reinitialize"]
    assert [r["round"] for r in found["ticket"]] == [0, 1, 2]
    assert [r["round"] for r in found["shuffle_mask"]] == [1, 2]
    assert report.by_kind([]) == {}


# The page -------------------------------------------------------------------------------


def store(folder, records, **changes):
    config = {"model": "lenet_300_100", "dataset": "digits", "seed": 0, "controls": []}
    config |= {"sizes": {"train": 10, "validation": 60, "test": 200}}
    made = Store.create(folder, {**config, **changes})
    for row in records:
        made.add(row)
    return made


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


HOSTILE = "<script>alert('1')</script>\"&.npz"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    rows = ladder("ticket", 0.9, 0.9, 0.86) + ladder("reinitialize", 0.88, 0.5, first=1)
    made = store(tmp_path_factory.mktemp("run"), rows, dataset=HOSTILE, model="<b>:net")
    report.write(made)
    return made


@pytest.mark.parametrize("name", ["$\\frac$", "a$_{$.npz"])
def test_a_name_is_not_read_as_a_formula(name):
    assert report.plot(ladder("ticket", 0.9, 0.9), title=name).startswith(b"\x89PNG")


def test_a_hostile_name_is_text_in_the_page(hostile):
    page = Page((hostile.folder / "report.html").read_text())
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert any(HOSTILE in text for text in page.text)
    assert any("<b>:net" in text for text in page.text)


def test_the_page_loads_nothing_from_elsewhere(hostile):
    text = (hostile.folder / "report.html").read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    sources = [a[n] for _, a in page.tags for n in ("src", "href", "srcset") if n in a]
    assert [s.split(",")[0] for s in sources] == ["data:image/png;base64"]
    assert not re.search(r"https?://|url\(|@import", text)


def test_the_page_shows_verdicts_tables_and_settings(hostile):
    text = " ".join(" ".join(Page((hostile.folder / "report.html").read_text()).text).split())
    assert "ticket: within 3.0 points of the dense accuracy down to 50.0% density" in text
    assert "reinitialize: within 3.0 points" in text
    for shown in ("100.00 %", "50.00 %", "25.00 %", "90.00 %", "88.00 %", "sizes", "200 test"):
        assert shown in text


def test_the_picture_in_the_page_is_the_one_beside_it(hostile):
    page = Page((hostile.folder / "report.html").read_text())
    (source,) = [a["src"] for tag, a in page.tags if tag == "img"]
    content = base64.b64decode(source.split(",")[1])
    assert content == (hostile.folder / "accuracy.png").read_bytes()
    assert image.imread(io.BytesIO(content)).ndim == 3


@pytest.mark.parametrize(
    "rows",
    [
        ladder("ticket", 0.9),
        ladder("ticket", *[0.9] * 14),
        ladder("ticket", 0.9, 0.9) + ladder("reinitialize", 0.8, first=1),
    ],
    ids=["the dense round alone", "down to a hundredth of a percent", "an unfinished control"],
)
def test_a_run_of_any_length_has_a_report(tmp_path, rows):
    made = store(tmp_path / "run", rows)
    report.write(made)
    assert image.imread(made.folder / "accuracy.png").std() > 0
    assert (made.folder / "report.html").read_text().rstrip().endswith("</html>")


def test_writing_again_replaces_the_report(hostile):
    before = (hostile.folder / "report.html").read_text()
    (hostile.folder / "report.html").write_text("old")
    report.write(hostile)
    assert (hostile.folder / "report.html").read_text() == before


# The store ------------------------------------------------------------------------------


def test_a_store_gives_back_what_it_was_given(tmp_path):
    rows = ladder("ticket", 0.1 + 0.2, 1 / 3)
    made = store(tmp_path / "a" / "b", rows, dataset="Ziffern ä")
    assert made.config()["dataset"] == "Ziffern ä"
    assert made.records() == rows
    assert Store(tmp_path / "a" / "b").records() == rows


def test_a_store_without_records_has_none(tmp_path):
    assert store(tmp_path / "run", []).records() == []


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_a_folder_with_any_trace_of_a_run_is_refused(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        Store.create(tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_empty_folder_is_taken(tmp_path):
    Store.create(tmp_path, {"seed": 3})
    assert Store(tmp_path).config() == {"seed": 3}
