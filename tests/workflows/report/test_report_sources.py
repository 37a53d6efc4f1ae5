"""What the report's page has from elsewhere than the ledger: the confirmation, pictures, floor, champion; and the
command that writes it."""

import base64
import dataclasses
import io
import json
import time
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from saddlepoint.cli import report as cli_report
from saddlepoint.tracking.registry import RegisteredVersion
from saddlepoint.workflows.confirm import CONFIRMATION, Candidate, Confirmation
from saddlepoint.workflows.evidence import estimates
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.report import report, tracked

HOSTILE = "ValueError: </td><script>alert('1')</script>"


def falling(number: int, values: dict[str, Any], at: int) -> dict[str, float]:
    return {"emd": 2.0 - number}


def confirmation(folder: Folder) -> Confirmation:
    def candidate(name: str, *emds: float, failures: tuple[str, ...] = ()) -> Candidate:
        scores = [{"emd": emd, "recall": 0.5} for emd in emds]
        return Candidate(
            name=name,
            values={"clip": 0.1},
            seeds=list(range(len(emds))),
            scores=scores,
            estimates=estimates(scores, 0.9),
            feasible=True,
            folders=[folder.path / name for _ in emds],
            keys=[],
            failures=list(failures),
        )

    result = Confirmation(
        metric="emd",
        second=None,
        seeds=3,
        draws=5,
        confidence=0.9,
        bounds=[],
        floor={"emd": 0.5},
        candidates=[
            candidate("trial <7>", 1.0, 2.0, 3.0),
            candidate("published defaults", 5.0, failures=(HOSTILE,)),
            candidate("trial 9", failures=("no",)),
        ],
    )
    (folder.path / CONFIRMATION).write_text(json.dumps(dataclasses.asdict(result), default=str))
    return result


def test_the_confirmation_is_shown_with_its_intervals(swept, page):
    _, folder, _ = swept(2, falling)
    result = confirmation(folder)
    shown = page()[1]
    rows = shown.table("configuration")
    assert rows[0]["configuration"] == "floor: real data"
    assert rows[0]["emd"] == "0.5"
    # 2 ± t(0.95, 2 degrees) * 1 / sqrt(3) = 2.920 / 1.732
    assert (rows[1]["configuration"], rows[1]["emd"], rows[1]["seeds"]) == ("trial <7>", "2 ± 1.69", "3")
    assert (rows[2]["configuration"], rows[2]["emd"], rows[2]["seeds"]) == ("published defaults", "5", "1")
    assert HOSTILE in shown.words
    dots = next(t for t in shown.figures["confirmed emd"]["data"] if "error_x" in t)
    assert dots["x"] == [2.0, 5.0]
    assert dots["error_x"]["array"] == pytest.approx([result.candidates[0].estimates["emd"].half, 0])
    assert dots["y"] == ["trial &lt;7&gt;", "published defaults"]


@pytest.mark.parametrize("content", ["", "{}", '{"candidates": [{"name": 1}]}', '{"candidates": 3}'])
def test_a_confirmation_that_cannot_be_read_costs_a_line_and_no_page(swept, page, content):
    _, folder, _ = swept(2, falling)
    (folder.path / CONFIRMATION).write_text(content)
    assert "confirmation.json cannot be read" in page()[1].words


class Store:
    """Stands for the tracking store."""

    uri = "sqlite:///x"

    def metrics(self, key: str) -> dict[str, float]:
        return {"floor/emd": 0.25, "confirm/emd": 3.0}

    def pictures(self, key: str, names: Any, at_most: int) -> dict[int, bytes]:
        if key != "trial-0001":
            return {}
        content = io.BytesIO()
        Image.new("L", (2000, 1000), 7).save(content, "PNG")
        return {4: content.getvalue(), 1200: content.getvalue()}


def test_pictures_floor_and_champion_come_from_the_store(swept, page, monkeypatch):
    swept(2, falling, promote={"model": "toy"})
    tags = {"saddle.name": "another", "saddle.promotion": "emd 1 beats 2 of <version> 6"}
    bearer = RegisteredVersion(
        name="toy", version=7, run_id=None, aliases=("champion",), tags=tags, description="", created=0
    )
    monkeypatch.setattr(tracked.Gallery, "of", lambda *_: Store())
    monkeypatch.setattr(tracked, "champion", lambda *_: bearer)
    shown = page()[1]
    assert "the published defaults 2; the floor, which is real data, 0.25" in shown.words
    assert "toy version 7 is champion, from the sweep another: emd 1 beats 2 of <version> 6." in shown.words
    assert "round 4" in shown.words
    assert "round 1,200" in shown.words
    pictures = [Image.open(io.BytesIO(base64.b64decode(r.split(",")[1]))) for r in shown.references]
    assert [p.size for p in pictures] == [(512, 256), (512, 256)]


def test_a_store_that_does_not_answer_holds_nothing_up(swept, tmp_path, monkeypatch):
    pipeline, folder, _ = swept(1, falling)

    class Silent(Store):
        def pictures(self, *_: Any) -> dict[int, bytes]:
            time.sleep(30)
            return {}

    monkeypatch.setattr(tracked.Gallery, "of", lambda *_: Silent())
    found = tracked.recall(folder, pipeline, [0], seconds=0.2)
    assert found.trouble == "the tracking store did not answer within 0.2 s"
    assert found.floor == {"emd": 0.25}  # what came before is kept


def test_the_command_prints_where_the_page_is(swept, read, tmp_path, monkeypatch, refusal):
    _, folder, _ = swept(2, falling)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").symlink_to(tmp_path)
    done = CliRunner().invoke(cli_report.app, ["toy", "--out", "x.html", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["path"] == "x.html"
    assert json.loads(done.stdout)["trials"] == {"complete": 2}
    assert read(tmp_path / "x.html").table("trial")
    assert not (folder.path / "report.html").exists()
    assert "toy" in refusal(lambda: report("toi", root=tmp_path))
