"""torchvision's sets, from small files of the same formats: put into place by hand, or downloaded from a server here.

The checksums are those of the small files; everything else is the code that loads the real ones.
"""

import gzip
import hashlib
import io
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from saddlepoint.data import load
from saddlepoint.errors import SaddleError

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8), RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
NOWHERE = "http://127.0.0.1:9/"  # nobody listens there


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx(values):
    """The format of MNIST's files."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(header + values.tobytes())


def pixels(levels):
    return torch.from_numpy(np.ascontiguousarray(levels)).float() / 127.5 - 1


@pytest.fixture(params=["mnist", "fashion_mnist"])
def grey(request, monkeypatch, tmp_path):
    """(name, torchvision's class, its files by name): small, and with an address where nobody answers."""
    kind = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[request.param]
    files = {
        "train-images-idx3-ubyte.gz": idx(TRAIN),
        "train-labels-idx1-ubyte.gz": idx(np.arange(30, dtype=np.uint8) % 10),
        "t10k-images-idx3-ubyte.gz": idx(TEST),
        "t10k-labels-idx1-ubyte.gz": idx(np.arange(20, dtype=np.uint8) % 10),
    }
    monkeypatch.setattr(kind, "resources", [(name, md5(content)) for name, content in files.items()])
    monkeypatch.setattr(kind, "mirrors", [NOWHERE])
    monkeypatch.setenv("SADDLE_CACHE", str(tmp_path / "cache"))
    return request.param, kind, files


@pytest.fixture
def served(tmp_path):
    """A server on this machine, and the folder whose files it gives; it counts what it was asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", folder, asked
        server.shutdown()


def put(folder: Path, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def left(root: Path):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def check_grey(data, name):
    assert (data.name, data.classes) == (name, 10)
    assert torch.equal(data.train, pixels(TRAIN[:, None]))
    assert torch.equal(data.heldout, pixels(TEST[:, None]))
    assert data.train_labels.tolist() == [index % 10 for index in range(30)]
    assert data.heldout_labels.tolist() == [index % 10 for index in range(20)]


def test_grey_sets_are_downloaded_once(grey, served, tmp_path, monkeypatch):
    name, kind, files = grey
    address, folder, asked = served
    put(folder, files)
    monkeypatch.setattr(kind, "mirrors", [NOWHERE, address])  # the first fails, the second has it
    check_grey(load(name), name)
    assert (tmp_path / "cache" / "datasets" / kind.__name__ / "raw" / "t10k-labels-idx1-ubyte").is_file()
    asked.clear()
    check_grey(load(name, download=False), name)
    check_grey(load(name), name)
    assert asked == []


def test_files_may_be_put_there_by_hand(grey, tmp_path):
    name, kind, files = grey
    put(tmp_path / "mine" / kind.__name__ / "raw", files)
    check_grey(load(name, root=str(tmp_path / "mine")), name)


def test_a_download_that_fails(grey, tmp_path):
    name, kind, files = grey
    with pytest.raises(SaddleError) as caught:
        load(name)
    line = str(caught.value)
    root = tmp_path / "cache" / "datasets"
    assert caught.value.exit_code == 1
    assert "\n" not in line
    assert line.startswith(f"data.name: {name!r} cannot be downloaded from {NOWHERE} to '{root}': ")
    assert "Connection refused" in line
    assert f"{kind.__name__}/raw/{next(iter(files))}" in line
    assert left(root) == []


@pytest.mark.parametrize("broken", ["cut short", "missing"])
def test_a_download_that_breaks_leaves_nothing(grey, served, tmp_path, monkeypatch, broken):
    """The images come whole, of the labels half or nothing: no later run may trust what there is."""
    name, kind, files = grey
    address, folder, _ = served
    last = "t10k-labels-idx1-ubyte.gz"
    put(folder, files | {last: files[last][:9]})
    if broken == "missing":
        (folder / last).unlink()
    monkeypatch.setattr(kind, "mirrors", [address])
    root = tmp_path / "cache" / "datasets"
    with pytest.raises(SaddleError, match=r"cannot be downloaded"):
        load(name)
    assert left(root) == []
    put(folder, files)
    check_grey(load(name), name)
    assert not list(root.glob(".*"))


def test_what_an_interrupted_run_of_torchvision_left_is_not_trusted(grey, tmp_path, served, monkeypatch):
    name, kind, files = grey
    raw = tmp_path / "mine" / kind.__name__ / "raw"
    contents = {file.removesuffix(".gz"): gzip.decompress(content) for file, content in files.items()}
    put(raw, contents | {"t10k-images-idx3-ubyte": contents["t10k-images-idx3-ubyte"][:5000]})
    with pytest.raises(SaddleError, match="does not hold") as caught:
        load(name, root=str(tmp_path / "mine"), download=False)
    assert caught.value.exit_code == 2
    address, folder, _ = served
    put(folder, files)
    monkeypatch.setattr(kind, "mirrors", [address])
    check_grey(load(name, root=str(tmp_path / "mine")), name)


def test_not_there_and_not_to_be_downloaded(grey, tmp_path):
    name, kind, _ = grey
    with pytest.raises(SaddleError) as caught:
        load(name, root=str(tmp_path / "mine"), download=False)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"data.root: '{tmp_path}/mine' does not hold {name} whole (RuntimeError: ")
    assert f"put {kind.__name__}/raw/train-images-idx3-ubyte.gz, " in str(caught.value)
    assert not (tmp_path / "mine").exists()


def test_sizes_and_two_tones(grey, tmp_path):
    name, kind, files = grey
    root = tmp_path / "mine"
    put(root / kind.__name__ / "raw", files)
    small = load(name, root=str(root), size=14)
    wanted = np.stack([np.asarray(Image.fromarray(image).resize((14, 14), Image.Resampling.BICUBIC)) for image in TEST])
    assert torch.equal(small.heldout, pixels(wanted[:, None]))
    two = load(name, root=str(root), binary=True)
    assert torch.equal(two.train, torch.from_numpy(np.where(TRAIN >= 128, 1, -1))[:, None].float())
    with pytest.raises(SaddleError, match=r"data\.size: 0 cannot be"):
        load(name, root=str(root), size=0)


def test_digits_in_two_tones():
    grey, two = load("digits"), load("digits", binary=True)
    assert torch.equal(two.train, ((grey.train + 1) * 8 > 8).float() * 2 - 1)
    assert two.fingerprint != grey.fingerprint


@pytest.fixture
def cifar(monkeypatch, tmp_path):
    """The batches by name, 10 images each, and an archive of them."""
    names = [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]
    files = {
        name: pickle.dumps({"data": COLOUR[10 * i : 10 * i + 10].reshape(10, -1), "labels": [*range(10)]})
        for i, name in enumerate(names)
    }
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    sums = [[name, md5(content)] for name, content in files.items()]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:6])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": sums[6][1]})
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive.getvalue()))
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{NOWHERE}cifar-10-python.tar.gz")
    monkeypatch.setenv("SADDLE_CACHE", str(tmp_path / "cache"))
    return files, archive.getvalue()


def check_cifar(data):
    assert (data.name, data.classes) == ("cifar10", 10)
    assert torch.equal(data.train, pixels(COLOUR[:50]))
    assert torch.equal(data.heldout, pixels(COLOUR[50:]))
    assert data.train_labels.tolist() == [*range(10)] * 5


def test_cifar10_from_its_archive_its_batches_and_a_server(cifar, served, tmp_path, monkeypatch):
    files, archive = cifar
    put(tmp_path / "archive", {"cifar-10-python.tar.gz": archive})
    check_cifar(load("cifar10", root=str(tmp_path / "archive")))
    put(tmp_path / "batches" / "cifar-10-batches-py", files)
    check_cifar(load("cifar10", root=str(tmp_path / "batches"), download=False))
    with pytest.raises(SaddleError, match=r"cannot be downloaded from http://127.0.0.1:9/cifar-10-python.tar.gz to"):
        load("cifar10")
    address, folder, _ = served
    put(folder, {"cifar-10-python.tar.gz": archive})
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}cifar-10-python.tar.gz")
    check_cifar(load("cifar10"))
    assert load("cifar10", size=8).sample_shape == (3, 8, 8)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_that_is_not_the_published_one_is_never_opened(cifar, tmp_path):
    files, _ = cifar
    trapped = files | {"data_batch_3": pickle.dumps(Trap(tmp_path / "sprung"))}
    put(tmp_path / "mine" / "cifar-10-batches-py", trapped)
    for download in (False, True):
        with pytest.raises(SaddleError):
            load("cifar10", root=str(tmp_path / "mine"), download=download)
    assert not (tmp_path / "sprung").exists()


FACES = RNG.integers(0, 256, (6, 218, 178, 3), dtype=np.uint8)


@pytest.fixture
def faces(monkeypatch, tmp_path):
    """CelebA's folder with 6 faces: of the parts train, train, valid, test, train, test."""
    names = [f"{index:06d}.jpg" for index in range(1, 7)]
    attributes = ["Bald", "Smiling", "Young"]
    smiling = [1, -1, 1, -1, 1, 1]
    texts = {
        "list_attr_celeba.txt": ["6", " ".join(attributes) + " "]
        + [f"{name} -1 {smile:2d}  1" for name, smile in zip(names, smiling, strict=True)],
        "identity_CelebA.txt": [f"{name} 7" for name in names],
        "list_bbox_celeba.txt": ["6", "image_id x_1 y_1 width height"] + [f"{name}    1  2 3 4" for name in names],
        "list_landmarks_align_celeba.txt": ["6", "lefteye_x lefteye_y"] + [f"{name} 1 2" for name in names],
        "list_eval_partition.txt": [f"{name} {part}" for name, part in zip(names, (0, 0, 1, 2, 0, 2), strict=True)],
    }
    files = {name: "\n".join(lines).encode() + b"\n" for name, lines in texts.items()}
    folder = tmp_path / "mine" / "celeba"
    put(folder, files)
    (folder / "img_align_celeba").mkdir()
    for name, face in zip(names, FACES, strict=True):
        Image.fromarray(face).save(folder / "img_align_celeba" / name, format="PNG")  # Pillow looks inside
    listed = [("id", md5(b"of the images"), "img_align_celeba.zip")]
    listed += [("id", md5(content), name) for name, content in files.items()]
    monkeypatch.setattr(datasets.CelebA, "file_list", listed)
    return str(tmp_path / "mine")


def test_celeba_is_cropped_around_its_centre(faces):
    data = load("celeba", root=faces, size=178)
    assert data.classes is None
    square = FACES[:, 20:198].transpose(0, 3, 1, 2)
    assert torch.equal(data.train, pixels(square[[0, 1, 4]]))
    assert torch.equal(data.heldout, pixels(square[[3, 5]]))
    assert load("celeba", root=faces).sample_shape == (3, 64, 64)


def test_an_attribute_of_celeba_is_the_label(faces):
    data = load("celeba", root=faces, size=8, label="Smiling")
    assert data.classes == 2
    assert data.train_labels.tolist() == [1, 0, 1]
    assert data.heldout_labels.tolist() == [0, 1]
    with pytest.raises(SaddleError, match=r"data.label: 'Smilling' is not known; did you mean 'Smiling'\?"):
        load("celeba", root=faces, label="Smilling")


def test_a_face_that_cannot_be_read_is_named(faces):
    file = Path(faces) / "celeba" / "img_align_celeba" / "000002.jpg"
    file.write_bytes(b"cut")
    with pytest.raises(SaddleError, match=f"image '{file}' cannot be read"):
        load("celeba", root=faces, size=8)


def test_google_drive_does_not_answer(monkeypatch, tmp_path, faces):
    def refuses(*args):
        raise RuntimeError("To download files from GDrive,\n'gdown' is required")

    monkeypatch.setattr("torchvision.datasets.celeba.download_file_from_google_drive", refuses)
    with pytest.raises(SaddleError) as caught:
        load("celeba", root=str(tmp_path / "empty"))
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert "from Google Drive to " in str(caught.value)
    assert "celeba/img_align_celeba.zip, celeba/list_attr_celeba.txt" in str(caught.value)
    assert left(tmp_path / "empty") == []
