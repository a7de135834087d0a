"""The page "Migrating from tfmot": all its scripts run, and it shows what they are."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = {path.stem: path for path in sorted((ROOT / "examples" / "migrating").glob("*.py"))}
PAGE = (ROOT / "docs" / "migrating_from_tfmot.md").read_text()

# The share of alive weights in each layer, as the schedules ask for it.
DENSITIES = {
    "blocks": [0.5, 0.5],
    "constant": [0.5, 0.5],
    "crossing": [0.5, 0.5],
    "export": [0.1, 0.1],
    "gradual": [0.2, 0.2],
    "own_loop": [0.25, 0.25],
    "resume": [0.2, 0.2],
    "rounds": [0.25, 0.25],
    "some_layers": [0.25, 1.0],
    "staying": [0.25, 0.25],
    "two_of_four": [0.5, 0.5],
}
RUN = """
import pathlib, runpy, sys
for path in map(pathlib.Path, sys.argv[1:]):
    print("script", path.stem)
    names = runpy.run_path(str(path))
if "sparsity" in names:
    print("script tfmot", *(name for name in dir(names["sparsity"]) if name[0] != "_"), sep="\\n")
"""


def is_before(name):
    return name.endswith("_before")


@pytest.fixture(scope="module")
def printed():
    """What each script printed. Keras 2 and Keras 3 run in a process each, for all scripts."""
    kinds = [
        [path for name, path in SCRIPTS.items() if is_before(name) == before]
        for before in (True, False)
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", RUN, *map(str, paths)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for paths in kinds
    ]
    found = {}
    for process in running:
        out, err = process.communicate()
        assert process.returncode == 0, out + err
        parts = re.split(r"^script (\w+)\n", out, flags=re.MULTILINE)[1:]
        found |= dict(zip(parts[::2], parts[1::2], strict=True))
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_prunes_to_the_density_it_names(name, printed):
    found = re.search(r"^density \[(.*)\]$", printed[name], re.MULTILINE)
    case = re.sub("_(before|after)$", "", name)
    # Counts are whole, and layers have 128 and 512 weights.
    assert [float(part) for part in found[1].split(",")] == pytest.approx(
        DENSITIES[case], abs=0.005
    )


def test_every_before_has_an_after():
    cases = {re.sub("_(before|after)$", "", name) for name in SCRIPTS}
    assert cases == set(DENSITIES)
    pairs = {f"{case}_{when}" for case in cases for when in ("before", "after")}
    alone = {"crossing", "staying"}
    assert set(SCRIPTS) == alone | {p for p in pairs if p.rpartition("_")[0] not in alone}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_page_shows_the_script(name):
    _, _, code = SCRIPTS[name].read_text().partition("\n\n")
    setup, found, rest = code.partition("from_logits=True)\n")
    if "_" in name and found:
        assert f"```python\n{rest.lstrip()}```" in PAGE
        setup = re.sub(
            r"^import (pathlib|tempfile|zipfile|tensorflow as tf)\n+", "", setup, flags=re.M
        )
        assert re.sub(r"\n+", "\n", setup + found) in re.sub(r"\n+", "\n", PAGE)
    else:
        assert f"```python\n{code}```" in PAGE
    assert f"`{name}.py`" in PAGE


def test_the_page_names_all_that_tfmot_offers_and_nothing_else(printed):
    offered = printed["tfmot"].split()
    assert "prune_low_magnitude" in offered
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(rows) == sorted(offered)
