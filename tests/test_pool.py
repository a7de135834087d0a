"""Several processes that do the tasks of a run: order, failures, interruptions."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from runs import wait_until

from keras_lottery.experiments.config import Config
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.plan import Task
from keras_lottery.experiments.pool import do_all
from keras_lottery.experiments.store import REPORT, Store
from keras_lottery.experiments.work import Job

TASKS = [Task(r, "ticket", 0, (0,)) for r in range(4)]
SMALL = {"subset": 60, "steps": "2it", "eval_every": "1it", "batch_size": 20}


class Heard(Live):
    """Keeps what is shown."""

    def __init__(self):
        super().__init__(quiet=True)
        self.said, self.rows = [], []

    def say(self, text):
        self.said.append(text)

    def add(self, record):
        self.rows.append((record["kind"], record["replicate"], record["round"]))


class Tasks:
    """A job that only counts, and fails at one task."""

    def __init__(self, failing=None):
        self.done, self.failing = [], failing

    def do(self, task, watch):
        if task.replicate == self.failing:
            raise ValueError("cannot")
        self.done.append(task.replicate)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes the workers processes that start at once; each writes its id into `pids`."""
    head = """
        import json, os, sys, time
        def send(*message): print(json.dumps(message), flush=True)
        def work():
            open(f"pids/{os.getpid()}", "w").close()
            about = json.loads(sys.stdin.readline())
            for line in sys.stdin:
                task = json.loads(line)
    """
    (tmp_path / "pids").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(body):
        code = textwrap.dedent(head) + textwrap.indent(textwrap.dedent(body), " " * 8)
        (tmp_path / "keras_lottery_command.py").write_text(code)
        return tmp_path / "pids"

    return write


def pids(folder):
    return [int(path.name) for path in folder.iterdir()]


def job(folder, **settings):
    return Job(str(folder), Config(**{**SMALL, **settings}))


def test_one_process_does_the_tasks_in_order():
    tasks = Tasks()
    do_all(tasks, TASKS, Heard())
    assert tasks.done == [0, 1, 2, 3]


def test_one_process_stops_at_a_task_that_fails():
    tasks = Tasks(failing=2)
    with pytest.raises(ValueError, match="cannot"):
        do_all(tasks, TASKS, Heard())
    assert tasks.done == [0, 1]


def test_a_single_task_needs_no_other_process():
    tasks = Tasks()
    do_all(tasks, TASKS[:1], Heard(), jobs=8)
    assert tasks.done == [0]


def test_each_task_is_done_once_and_all_that_is_told_is_shown(fake, tmp_path):
    folder = fake("""
        open(f"task{task['replicate']}", "x").close()
        send("begin", "a title", 3)
        send("advance", 3, {"val_accuracy": 0.5})
        send("say", f"said {task['replicate']} {about['threads']}")
        send("done")
    """)
    heard = Heard()
    do_all(job(tmp_path), TASKS, heard, jobs=3)
    threads = max(1, os.cpu_count() // 3)
    assert sorted(heard.said) == [f"said {r} {threads}" for r in range(4)]
    assert len(list(tmp_path.glob("task*"))) == 4
    assert 1 <= len(pids(folder)) <= 3 and not any(alive(p) for p in pids(folder))


def test_there_are_no_more_processes_than_tasks(fake, tmp_path):
    folder = fake("time.sleep(0.5); send('done')")
    do_all(job(tmp_path), TASKS[:2], Heard(), jobs=5)
    assert len(pids(folder)) == 2


def test_a_worker_is_told_the_whole_job(fake, tmp_path):
    fake("send('say', json.dumps(about)); send('done')")
    heard = Heard()
    do_all(Job("f", Config(lr_drops=("5it",)), "d", 7.5), TASKS[:2], heard, jobs=2)
    told = json.loads(heard.said[0])["job"]
    assert (told["folder"], told["data_dir"], told["checkpoint_seconds"]) == ("f", "d", 7.5)
    assert told["config"]["lr_drops"] == ["5it"]


@pytest.mark.parametrize(("kind", "error"), [("OSError", OSError), ("ValueError", ValueError)])
def test_a_task_that_fails_ends_all_processes(fake, tmp_path, kind, error):
    folder = fake(f"""
        if task["replicate"] == 1: send("failed", "{kind}", "the reason")
        else: time.sleep(600)
    """)
    with pytest.raises(error, match=r"^the reason$"):
        do_all(job(tmp_path), TASKS, Heard(), jobs=2)
    assert not any(alive(p) for p in pids(folder))


def test_a_process_that_dies_is_told_with_its_task_and_code(fake, tmp_path):
    folder = fake("sys.exit(3)")
    with pytest.raises(
        ValueError, match=r"process of the search.*, replicate \d ended with code 3"
    ):
        do_all(job(tmp_path), TASKS, Heard(), jobs=2)
    assert not any(alive(p) for p in pids(folder))


def test_a_process_that_dies_at_its_start_is_told(fake, tmp_path):
    fake("").with_name("keras_lottery_command.py").write_text("raise SystemExit(5)")
    with pytest.raises(ValueError, match="ended with code 5"):
        do_all(job(tmp_path), TASKS, Heard(), jobs=2)


MODEL = """
import os, keras
print("import")
def build(input_shape, classes):
    print("print"); os.system("echo shell"); os.write(1, b"write")
    if os.path.exists("broken"):
        raise {error}("the model is broken")
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(classes)])
"""


def user_model(folder, monkeypatch, error="ValueError"):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.chdir(folder)
    (folder / "chatty.py").write_text(MODEL.format(error=error))


def test_what_user_code_prints_does_not_come_between_the_messages(tmp_path, monkeypatch):
    user_model(tmp_path, monkeypatch)
    heard = Heard()
    do_all(job(tmp_path / "run", model="chatty:build"), TASKS[:2], heard, jobs=2)
    assert sorted(heard.rows) == [("ticket", 0, 0), ("ticket", 1, 0)]
    assert len(Store(tmp_path / "run").records()) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [("ValueError", "^the model is broken$"), ("RuntimeError", "ended with code 1")],
)
def test_a_model_that_raises_is_one_error(tmp_path, monkeypatch, capfd, error, message):
    user_model(tmp_path, monkeypatch, error)
    (tmp_path / "broken").touch()
    before = children()
    with pytest.raises(ValueError, match=message):
        do_all(job(tmp_path / "run", model="chatty:build"), TASKS[:2], Heard(), jobs=2)
    assert children() == before
    if error == "RuntimeError":
        assert "RuntimeError: the model is broken" in capfd.readouterr().err


def children(pid=None):
    pid = pid or os.getpid()
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_control_c_ends_the_workers_and_writes_the_report(tmp_path):
    flags = ["--subset=120", "--steps=12it", "--eval_every=4it", "--batch_size=20"]
    flags += ["--rounds=200", "--replicates=2", "--jobs=2", f"--workdir={tmp_path / 'run'}"]
    heeds = (
        "import signal as s; s.signal(s.SIGINT, s.default_int_handler)"  # a shell's & ignores it
    )
    code = f"{heeds}; import keras_lottery_command as c; c.run()"
    command = [sys.executable, "-c", code, "find", *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_until(lambda: list((tmp_path / "run").glob("replicate_*/ticket/*/record.json")))
        workers = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate()
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, errors
    assert len(workers) == 2 and not any(alive(w) for w in workers)
    assert "Interrupted. The same command goes on from here." in output
    assert "Traceback" not in errors
    assert (tmp_path / "run" / REPORT).exists()
    assert not Store(tmp_path / "run").locked()
