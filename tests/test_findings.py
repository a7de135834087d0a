"""Findings as files: read as written, replaced whole, damaged ones named, shown on a page."""

import json

import pytest

from keras_lottery.experiments import reporting
from keras_lottery.experiments.analyzing import findings
from keras_lottery.experiments.analyzing.findings import Finding, Picture, Table


def finding(*names):
    shown = [Picture(n, "a line", 850, {"png": b"\x89PNG", "svg": b"<svg/>"}) for n in names]
    return Finding("overlap", "Two", ["Words."], [Table("T", ["a"], [["1"]])], shown, {"x": [1.5]})


def test_a_finding_is_read_as_it_was_written(tmp_path):
    whole = finding("overlap", "overlap_line")
    whole.write(tmp_path)
    assert findings.read(tmp_path) == [whole]


def test_a_later_finding_takes_the_place_of_the_earlier_one(tmp_path):
    finding("overlap", "overlap_line").write(tmp_path)
    finding("overlap").write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "overlap.json", "overlap.png", "overlap.svg",
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"format": 99}), "{}"])
def test_a_damaged_finding_says_what_to_do(tmp_path, content):
    (tmp_path / "overlap.json").write_text(content)
    with pytest.raises(ValueError, match=r"overlap\.json.*Remove it"):
        findings.read(tmp_path)


def test_a_page_of_findings_loads_nothing_and_runs_nothing(tmp_path):
    hostile = Finding("overlap", "<script>alert(1)</script>", ["a & b"], finding("x").tables)
    path = reporting.write_findings([hostile, finding("overlap")], "Two", tmp_path / "new")
    text = path.read_text()
    assert "<script" not in text and "a &amp; b" in text
    assert "data:image/svg+xml;base64," in text and "<td>1</td>" in text
    assert "All numbers" not in text
