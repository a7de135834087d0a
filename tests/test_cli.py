"""The command line of `find`: flags in, a run in a folder out, plain words when it cannot be."""

import dataclasses
import importlib
import json
import os
import re
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from commands import python
from hypothesis import given
from hypothesis import strategies as st

import keras_lottery
from keras_lottery import controls, criteria
from keras_lottery.cli import main
from keras_lottery.experiments import models, runner
from keras_lottery.experiments.config import SCOPES, Config
from keras_lottery.experiments.optimizers import OPTIMIZERS
from keras_lottery.experiments.plan import Branch, Plan, control_names
from keras_lottery.experiments.presets import PRESETS

SETTINGS = [f.name for f in dataclasses.fields(Config)]
FLAGS = [
    *("preset", "scale", "rounds", "replicates", "controls", "control_seeds", "workdir"),
    *("data_dir", "jobs", "checkpoint_seconds", "tensorboard", *SETTINGS),
]
COMMANDS = ("find", "branch", "status", "report", "analyze", "presets", "strong", "export")


# Without a run --------------------------------------------------------------------------


def test_without_a_command_the_usage_is_printed_and_the_exit_code_is_2(cli):
    code, out, _ = cli()
    assert code == 2
    assert "keras-lottery COMMAND" in out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("ask", ["--help", "-h", "help"])
def test_asking_for_help_is_no_error(cli, ask):
    code, out, err = cli(ask)
    assert (code, err) == (0, "")
    assert all(name in out for name in COMMANDS)


def test_an_unknown_command_lists_the_commands_in_one_line(cli):
    code, out, err = cli("fnid", "--rounds=2")
    assert (code, out) == (2, "")
    expected = f"Unknown command 'fnid'. The commands are: {', '.join(COMMANDS)}"
    assert err == f"keras-lottery: {expected}\n"


def described(out):
    """Each flag of a help, with its words."""
    parts = re.split(r"^  --", out, flags=re.MULTILINE)[1:]
    found = {}
    for part in parts:
        name, _, words = part.partition("\n")
        found[name.removeprefix("[no]")] = " ".join(words.split())
    return found


@pytest.mark.parametrize("ask", ["--help", "-h"])
def test_the_help_of_find_says_of_every_flag_what_it_means_and_its_default(cli, ask):
    code, out, err = cli("find", ask)
    assert (code, err) == (0, "")
    found = described(out)
    assert sorted(found) == sorted(FLAGS)
    for name, words in found.items():
        assert re.fullmatch(r".{10,} Default: .+\.", words), name
    for name in (*OPTIMIZERS, *SCOPES, *controls.NAMED, *criteria.NAMED, *models.NAMED):
        assert name in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("flag", "default"),
    [
        *[("scope", "layerwise"), ("batch_size", "60"), ("cosine", "no"), ("replicates", "1")],
        *[("controls", "none"), ("dropout", "none"), ("rewind_to", "0it")],
        ("output_fraction", "half of --prune_fraction"),
    ],
)
def test_the_help_shows_the_default_itself(cli, flag, default):
    assert described(cli("find", "--help")[1])[flag].endswith(f" Default: {default}.")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_how_it_is_called(cli, command):
    code, out, err = cli(command, "--help")
    assert (code, err) == (0, "")
    assert f"usage: keras-lottery {command} " in out


def refused(result, *words):
    """Exit code 2 and one line on stderr that holds the words; nothing was written."""
    code, _, err = result
    assert code == 2
    assert err.startswith("keras-lottery find: ")
    assert len(err.splitlines()) == 1, err
    for word in words:
        assert str(word) in err
    assert not os.path.exists("runs")


def test_an_unknown_flag_lists_the_valid_ones(cli):
    refused(cli("find", "--ronuds=3"), "'ronuds'", *(f"--{name}" for name in FLAGS))
    refused(cli("find", "--epochs=3"), "'epochs'", "--steps")


@pytest.mark.parametrize(
    ("flag", "valid"),
    [
        ("--preset=lth/lennet", PRESETS),
        ("--scope=everywhere", SCOPES),
        ("--criterion=size", criteria.NAMED),
        ("--rewind=back", ("weights", "learning_rate", "none")),
        ("--optimizer=newton", OPTIMIZERS),
        ("--augment=turn", ("none", "flip_crop")),
        ("--controls=reinitialize,nothing", control_names()),
        ("--controls=noise:scal=1", ("noise", "scal", "scale")),
        ("--controls=reinitialize:to=mnist", ("'to'",)),
        ("--model=lenet5", [*models.NAMED, "module:function"]),
        *[(f"--{name}=5", ("500it", "2ep", f"--{name}")) for name in ("rewind_to", "steps")],
        ("--lr_drops=5it,5", ("500it", "2ep", "--lr_drops")),
    ],
)
def test_an_unknown_value_is_named_and_the_valid_ones_are_listed(cli, flag, valid):
    refused(cli("find", flag), re.split("[=,]", flag.partition(":")[0])[-1], *valid)


@pytest.mark.parametrize(
    ("flag", "word"),
    [
        *[("--rounds=0", "--rounds=0"), ("--rounds=two", "expected an integer")],
        *[("--replicates=0", "--replicates"), ("--control_seeds=0", "--control_seeds")],
        *[("--jobs=0", "--jobs"), ("--checkpoint_seconds=-1", "--checkpoint_seconds")],
        *[
            ("--steps=0it", "--steps"),
            ("--eval_every=0it", "--eval_every"),
            ("--scale=0", "--scale=0.0: must be"),
        ],
        *[("--batch_size=0", "--batch_size"), ("--batch_size=5000", "5000"), ("--seed=-1", "--s")],
        *[("--learning_rate=0", "--learning_rate"), ("--learning_rate=fast", "expected a number")],
        *[("--prune_fraction=1.5", "--prune_fraction"), ("--prune_fraction=0", "--prune_fraction")],
        *[("--output_fraction=1", "output_fraction"), ("--rewind_to=-5it", "--rewind_to: ")],
        *[("--rewind_to=25ep", "--rewind_to"), ("--warmup=-1it", "--warmup: ")],
        *[("--dropout=0.5", "conv_2"), ("--initializer=foo", "--initializer")],
        *[("--label_noise=2", "--label_noise"), ("--drop_factor=0", "--drop_factor")],
        *[("--subset=9999", "--subset"), ("--validation=0", "--validation")],
        *[("--exclude=(", "--exclude"), ("--exclude=nowhere", "nowhere")],
        *[("--controls=noise", "scale"), ("--controls=noise:scale=a", "scale")],
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_that_was_typed(cli, flag, word):
    result = cli("find", flag)
    refused(result, word)
    assert f"`{flag[2:].partition('=')[0]}`" not in result[2]


def test_flags_that_do_not_go_together_are_refused(cli):
    refused(
        cli("find", "--scope=global", "--output_fraction=0.1"), "--output_fraction", "layerwise"
    )
    refused(cli("find", "--rewind=none", "--rewind_to=5it"), "--rewind_to", "'none'")
    refused(cli("find", "--cosine", "--lr_drops=5it"), "--cosine", "--lr_drops")


def test_words_that_are_no_flags_are_refused(cli):
    refused(cli("find", "digits"), "Unexpected: digits.", "--name=value")
    refused(cli("find", "--rounds=2", "--", "x"), "Unexpected: x.")


@given(st.sampled_from(["`seed`", "`seeds`", "seed", "`rewind_steps`", "`x y`"]), st.text())
def test_only_quoted_names_of_flags_are_shown_as_flags(word, rest):
    rest = rest.replace("`", "")
    shown = main._as_typed(f"{word} {rest}", ["seed", "rewind_to"])
    expected = {"`seed`": "--seed", "`rewind_steps`": "--rewind_to"}.get(word, word)
    assert shown == f"{expected} {rest}"


# Files that are missing or broken, libraries that are missing ----------------------------


def test_missing_files_and_modules_are_named(cli):
    refused(cli("find", "--dataset=no/such.npz"), "no/such.npz")
    refused(cli("find", "--model=no_such_module:build"), "no_such_module")


def test_broken_files_are_named(cli, tmp_path):
    (tmp_path / "broken_nets.py").write_text("def build(:\n")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    refused(cli("find", "--model=broken_nets:build"), "broken_nets")
    refused(cli("find", "--dataset=bad.npz"), "bad.npz")


def test_a_used_workdir_is_refused_and_left_alone(cli, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "config.json").write_text("{}")
    refused(cli("find", "--workdir=used"), "'used' is a run of format None")
    assert [p.name for p in (tmp_path / "used").iterdir() if p.name[0] != "."] == ["config.json"]
    assert (tmp_path / "used" / "config.json").read_text() == "{}"


def test_a_file_in_place_of_the_workdir_is_refused(cli, tmp_path):
    (tmp_path / "taken").write_text("mine")
    refused(cli("find", "--workdir=taken"), "taken")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    ("module", "flags", "extra"),
    [
        ("sklearn.datasets", ["--seed=77"], "examples"),
        ("matplotlib", [], "plots"),
        ("jinja2", [], "plots"),
        ("tensorboard", ["--tensorboard"], "tensorboard"),
        ("tensorflow_datasets", ["--dataset=mnist"], "datasets"),
    ],
)
def test_a_missing_library_is_told_with_its_extra_before_training(
    cli, monkeypatch, module, flags, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    refused(cli("find", *flags), f"pip install 'keras-lottery[{extra}]'")


def offline(name, data_dir=None):
    """A builder of tensorflow-datasets without a network."""

    def fail():
        raise ConnectionError("Failed to resolve 'storage.googleapis.com'\nand more lines")

    image = SimpleNamespace(shape=(28, 28, 1), np_dtype=np.uint8)
    features = {"image": image, "label": SimpleNamespace(shape=(), np_dtype=np.int64)}
    info = SimpleNamespace(features=features, supervised_keys=None, splits={})
    return SimpleNamespace(info=info, download_and_prepare=fail)


def test_without_a_network_it_is_said_how_to_bring_the_data(cli, monkeypatch):
    core = SimpleNamespace(DatasetNotFoundError=KeyError)
    fake = SimpleNamespace(builder=offline, core=core)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    refused(cli("find", "--dataset=mnist"), "'mnist'", "Failed to resolve", "--data_dir")


def test_an_unknown_data_set_lists_what_it_may_be(cli):
    refused(cli("find", "--dataset=mnist9"), "'mnist9'", '"digits"', ".npz", "tensorflow-datasets")


# Flags ----------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    """What `find` asked for: config, plan, folder and options of each call."""
    calls = []

    def note(config, plan, folder, live, **options):
        calls.append((config, plan, str(folder), options))
        raise ValueError("enough")

    monkeypatch.setattr(runner, "run", note)
    return calls


def test_without_flags_all_has_its_default(cli, seen):
    cli("find")
    config, plan, folder, options = seen[0]
    assert (config, plan) == (Config().complete(), Plan())
    assert folder == os.path.join("runs", f"digits-lenet_300_100-{Config().identity()}")
    assert options == {"preset": None, "jobs": 1, "data_dir": None, "checkpoint_seconds": 30.0}


def test_flags_reach_the_run(cli, seen):
    given = "--rounds=3 --steps=4ep --prune_fraction=0.3 --output_fraction=0.1 --rewind_to=2ep"
    given += " --criterion=movement --optimizer=momentum --learning_rate=0.5 --batch_size=7"
    given += " --seed=9 --controls=reinitialize,noise:scale=0.5 --control_seeds=2 --replicates=4"
    given += " --lr_drops=1ep,2ep --shuffle_labels --dataset=a/b.npz --model=nets:f --jobs=2"
    cli("find", *given.split(), "--workdir=here", "--data_dir=there")
    config, plan, folder, options = seen[0]
    assert config == Config(
        dataset="a/b.npz",
        model="nets:f",
        steps="4ep",
        batch_size=7,
        optimizer="momentum",
        learning_rate=0.5,
        lr_drops=("1ep", "2ep"),
        prune_fraction=0.3,
        output_fraction=0.1,
        criterion="movement",
        rewind_to="2ep",
        shuffle_labels=True,
        seed=9,
        eval_every="100it",
    )
    assert plan == Plan(3, 4, (Branch("reinitialize", 2), Branch("noise:scale=0.5", 2)))
    assert (folder, options["jobs"], options["data_dir"]) == ("here", 2, "there")


def test_the_folder_is_named_by_data_model_and_all_settings(cli, seen):
    for flag in ("--seed=0", "--seed=1", "--rounds=3", "--controls=dense"):
        cli("find", "--dataset=a/b [2].npz", "--model=nets:f", flag)
    names = [folder for _, _, folder, _ in seen]
    assert names[0] == names[2] == names[3] != names[1]
    assert re.fullmatch(r"b-+2-+nets-f-[0-9a-f]{8}", os.path.basename(names[0]))


def test_a_preset_gives_settings_rounds_and_name_and_flags_override_it(cli, seen):
    cli("find", "--preset=lth/conv4")
    cli("find", "--preset=lth/conv4", "--learning_rate=0.5", "--rounds=2", "--dataset=digits")
    (whole, plan, folder, _), (changed, shorter, *_) = seen
    assert (whole.model, whole.steps, plan.rounds) == ("conv_4", "25000it", 25)
    assert os.path.basename(folder) == f"lth-conv4-{whole.identity()}"
    assert (changed.learning_rate, changed.dataset, shorter.rounds) == (0.5, "digits", 2)
    same = {"learning_rate": 3e-4, "dataset": "cifar10", "eval_every": "100it"}
    assert dataclasses.replace(changed, **same) == whole


def test_a_scale_shortens_all_that_counts_steps(cli, seen):
    cli("find", "--preset=lmc/resnet20_warmup", "--scale=0.01", "--rewind_to=2000it")
    config = seen[0][0]
    assert (config.steps, config.warmup, config.rewind_to) == ("630it", "300it", "20it")
    assert config.lr_drops == ("320it", "480it")


# Importing ------------------------------------------------------------------------------

IMPORT = """
import json, os, sys
import keras, tensorflow
modules, environment = set(sys.modules), dict(os.environ)
import keras_lottery
print(json.dumps([sorted(set(sys.modules) - modules), dict(os.environ) == environment]))
"""
HEAVY = {"tensorflow_model_optimization", "tf_keras", "tensorflow_datasets", "matplotlib"}
HEAVY |= {"sklearn", "jinja2", "tensorboard"}


def test_importing_the_package_is_cheap_and_leaves_the_environment_alone():
    done = python(IMPORT)
    assert done.returncode == 0, done.stderr
    imported, same = json.loads(done.stdout.splitlines()[-1])
    assert "keras_lottery" in imported
    assert same
    assert not HEAVY & {name.split(".")[0] for name in imported}
    assert "keras_lottery.experiments" not in imported


def test_another_keras_backend_is_an_import_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "numpy")
    with pytest.raises(ImportError, match=r"'numpy'.*KERAS_BACKEND=tensorflow"):
        importlib.reload(keras_lottery)
