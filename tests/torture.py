"""`make torture`: kill `make reproduce` with -9 at random moments, go on each time, and miss nothing.

A tiny study is trained in a copy of the project. After every kill each file must be whole and every seed that
was finished before must still be there, the same to its timing. In the end records and files must be those of
a run that nobody disturbed, and one more run must find nothing to do.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conftest import without_costs

from msam import pipeline, records, studies

ROOT = Path(__file__).parents[1]
PROFILE = "outside/torture.yaml"
TEXT = "# Torture\n\nA book of one page.\n"


class ViolationError(AssertionError):
    """Something was lost, half-written, trained twice or left over."""


def copy_project(folder):
    """What `make reproduce` reads, so that edits meanwhile change nothing; the book has one page."""
    for name in ("src", "workflow", "notebooks", "examples"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy2(ROOT / name, folder)
    shutil.copy2(ROOT / "tests" / PROFILE, folder)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    for name in ("book", "tmp"):
        (folder / name).mkdir()
    for name in ("_config.yml", "references.bib"):
        shutil.copy2(ROOT / "book" / name, folder / "book")
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    (folder / "book" / "_toc.yml").write_text("format: jb-book\nroot: text\n")
    (folder / "book" / "text.md").write_text(TEXT)


class Torture:
    """The study in its folder, and what was ever seen finished there."""

    def __init__(self, folder):
        self.folder, self.results = folder, folder / "results" / "local"
        profile = studies.load(str(folder / Path(PROFILE).name))
        self.seeds = profile["seeds"]
        self.paths = [cell.path(self.results) for cell in studies.cells(profile)]
        self.finished, self.whole, self.truth = {}, {}, {}

    def start(self):
        """`make reproduce` in a process group of its own; its output goes to the file `printed`."""
        places = {"MSAM_DATA": "data", "PYTHONPATH": "src", "TMPDIR": "tmp", "JUPYTER_RUNTIME_DIR": "runtime"}
        environment = {**os.environ, **{name: str(self.folder / place) for name, place in places.items()}}
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment.pop("MSAM_CACHE", None)
        with (self.folder / "printed").open("w") as output:
            return subprocess.Popen(
                ["make", "-o", ".venv/.ready", "reproduce", f"PROFILE={Path(PROFILE).name}", "JOBS=2"],
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def printed(self):
        """What the last run said."""
        return (self.folder / "printed").read_text()

    def forget(self):
        """Begin from nothing: no results, no data, no book."""
        for name in ("results", "data", "build"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.finished, self.whole = {}, {}

    def files(self):
        """Names of all files that a run is to leave."""
        found = [p for name in ("results", "data", "build/book") for p in (self.folder / name).rglob("*")]
        return sorted(str(path.relative_to(self.folder)) for path in found if path.is_file())

    def look(self):
        """Check what is there against all that was finished before; one line about it."""
        notes = [p.read_text() for p in self.results.rglob("*.failed.json")]
        require(not notes, f"a cell failed: {notes}")
        for path in self.results.rglob("[!.]*.json"):
            with contextlib.suppress(FileNotFoundError):  # a partial record that has just become whole
                json.loads(path.read_text())
        now = {}
        for path in self.paths:
            for candidate in (path.with_suffix(".partial.json"), path):
                if not candidate.exists():
                    continue
                seeds = records.read(candidate)["seeds"]
                numbers = [seed["seed"] for seed in seeds]
                require(numbers == list(range(len(numbers))), f"{candidate}: seeds {numbers}")
                now |= {(path, seed["seed"]): seed for seed in seeds}
        for (path, number), seed in self.finished.items():
            require((path, number) in now, f"{path}: seed {number} was finished and is lost")
            require(now[path, number] == seed, f"{path}: seed {number} was finished and has changed")
        for path, content in self.whole.items():
            require(path.is_file(), f"{path}: was whole and is gone")
            require(path.read_bytes() == content, f"{path}: was whole and has changed")
        self.finished = now
        done = [path for path in self.paths if path.is_file()]
        self.whole = {path: path.read_bytes() for path in done if path.with_suffix(".ipynb").is_file()}
        every, begun = len(self.paths) * self.seeds, len(list(self.results.rglob(".*.pt")))
        return f"{len(done)} of {len(self.paths)} records, {len(now)} of {every} seeds, {begun} begun"

    def take_truth(self):
        """Records and files of the undisturbed run."""
        self.truth = {path: plain(path) for path in self.paths}
        self.truth_files = self.files()

    def check_the_end(self):
        """The run has ended by itself: all is as if nobody had disturbed it, and nothing is left to do."""
        self.look()
        for path, expected in self.truth.items():
            require(path.is_file(), f"{path}: is missing in the end")
            require(plain(path) == expected, f"{path}: differs from the undisturbed run")
        found = self.files()
        require(found == self.truth_files, f"files differ: {set(found) ^ set(self.truth_files)}")
        with pipeline.exclusive(self.results):
            pass
        before = {path: path.read_bytes() for path in self.paths}
        require(self.start().wait() == 0, f"the run after the last one failed:\n{self.printed()}")
        everything = f"0 of {len(self.paths)} cells to train: nothing to do"
        for line in (everything, "book is up to date"):
            require(line in self.printed(), f"{line!r} was not said, but:\n{self.printed()}")
        require(before == {path: path.read_bytes() for path in self.paths}, "a finished run changed records")
        require(not (left := self.processes()), f"processes are left over: {left}")

    def processes(self):
        """Those that were started for the study and live; a killed one may need a moment."""
        for _ in range(20):
            found = []
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if f"PYTHONPATH={self.folder}".encode() in (process / "environ").read_bytes():
                        found.append(process.name)
            if not found:
                break
            time.sleep(0.1)
        return found


def plain(path):
    """A record without what differs from run to run."""
    record = records.read(path)
    costs = ("seconds", "peak_memory_mb", "finished")
    record["provenance"] = {k: v for k, v in record["provenance"].items() if k not in costs}
    return record | {"seeds": [without_costs(seed) for seed in record["seeds"]]}


def require(holds, message):
    """Raise `ViolationError` unless it holds."""
    if not holds:
        raise ViolationError(message)


def torture(folder, kills, seed):
    """Kill so many times, each at a random moment of a whole run's time, and check after each."""
    draw = random.Random(seed)
    copy_project(folder)
    study = Torture(folder)
    started = time.monotonic()
    require(study.start().wait() == 0, f"the undisturbed run failed:\n{study.printed()}")
    whole = time.monotonic() - started
    study.take_truth()
    print(f"seed {seed}: an undisturbed run takes {whole:.0f} s", flush=True)
    study.check_the_end()
    study.forget()
    done = runs = 0
    while done < kills or study.results.exists():
        delay = draw.uniform(0, whole) if done < kills else None
        fresh, begun = not study.results.exists(), time.monotonic()
        process = study.start()
        try:
            code = process.wait(delay)
        except BaseException as reason:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(reason, subprocess.TimeoutExpired):
                raise
            done += 1
            print(f"kill {done:>2} after {delay:4.1f} s: {study.look()}", flush=True)
            continue
        require(code == 0, f"a resumed run failed:\n{study.printed()}")
        whole = time.monotonic() - begun if fresh else whole
        study.check_the_end()
        runs += 1
        print(f"complete for the {runs}. time, the same as undisturbed; again from nothing", flush=True)
        study.forget()
    print(f"{done} kills, {runs} complete runs, nothing lost, in {time.monotonic() - started:.0f} s")


def main():
    """Exit code 1 and the folder that shows it where something is violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        torture(folder, options.kills, options.seed)
    except (ViolationError, ValueError, RuntimeError) as error:
        print(f"VIOLATION: {error}\nsee {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
