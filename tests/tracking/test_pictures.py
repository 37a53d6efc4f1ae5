"""What the store gives back of a sweep: the pictures and numbers that a tracker sent."""

import io
from pathlib import Path

import pytest
from PIL import Image

from saddlepoint.errors import SaddleError
from saddlepoint.tracking.pictures import Gallery, evenly
from saddlepoint.tracking.tracker import Tracker


def png(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (8, 8), shade).save(content, "PNG")
    return content.getvalue()


def test_a_picture_comes_back_as_it_was_sent(uri, tmp_path):
    folder = tmp_path / "tracking"
    with Tracker(folder, tracking_uri=uri, experiment="digits") as tracker:
        tracker.start_run("sweep", name="s", params={}, tags={})
        tracker.log("sweep", 0, {"floor/fid": 4.5})
        tracker.start_run("trial-0003", name="t", parent="sweep", params={}, tags={})
        for step in range(10, 100, 10):
            tracker.picture("trial-0003", "samples", step, png(step))
            tracker.picture("trial-0003", "latents", step, png(0))
        assert tracker.drain(timeout=60)
    gallery = Gallery.of(folder, uri)
    found = gallery.pictures("trial-0003", ["translations", "samples", "latents"], at_most=3)
    assert found == {10: png(10), 50: png(50), 90: png(90)}
    assert gallery.pictures("trial-0003", ["translations"], at_most=3) == {}
    assert gallery.pictures("trial-0099", ["samples"], at_most=3) == {}
    assert gallery.metrics("sweep") == {"floor/fid": 4.5}


def test_a_store_that_knows_nothing_of_the_sweep_is_left_as_it_is(uri, tmp_path):
    with pytest.raises(SaddleError, match="nothing of this sweep"):
        Gallery.of(tmp_path / "tracking", uri)
    (tmp_path / "tracking").mkdir()
    gone = f"sqlite:///{tmp_path}/gone.db"
    (tmp_path / "tracking" / "runs.json").write_text(f'{{"store": "{gone}", "runs": {{}}}}')
    with pytest.raises(SaddleError, match="gone"):
        Gallery.of(tmp_path / "tracking", gone)
    with pytest.raises(SaddleError, match="is tracked in"):
        Gallery.of(tmp_path / "tracking", uri)
    assert not Path(tmp_path / "gone.db").exists()


@pytest.mark.parametrize(
    ("n", "at_most", "chosen"), [(0, 6, []), (3, 6, [0, 1, 2]), (11, 6, [0, 2, 4, 6, 8, 10]), (9, 2, [0, 8])]
)
def test_an_even_choice_holds_both_ends(n, at_most, chosen):
    assert evenly(range(n), at_most) == chosen
