"""Data sets: tiny files in the official formats made here, and the real files where this machine has them."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
import zipfile
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image

from mialib import REPO_ROOT, data
from mialib.data import Dataset, datasets, download, formats, load, load_image_folder, loaders


def tiny(**changes) -> Dataset:
    """Six one-channel 2x2 images of three classes; pixel values 0..23."""
    fields = dict(
        name="tiny",
        x=torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2),
        y=torch.tensor([0, 1, 2, 0, 1, 2]),
        num_classes=3,
        mean=torch.tensor([0.5]),
        std=torch.tensor([0.25]),
    )
    return Dataset(**fields | changes)


# --- Dataset ---


def test_inputs_by_hand():
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    images = tiny(x=x, y=torch.tensor([0, 1, 2]))
    got = images.inputs(torch.tensor([[2, 0], [1, 1]]))
    assert got.shape == (2, 2, 1, 1, 1) and got.dtype == torch.float32
    torch.testing.assert_close(got.flatten(), torch.tensor([2.0, -2.0, -1.2, -1.2]))

    x = torch.tensor([[1.0, 2.0], [3.0, 8.0], [0.0, 0.0]])
    features = tiny(
        x=x, y=torch.tensor([0, 1, 2]), mean=torch.tensor([1.0, 2.0]), std=torch.tensor([2.0, 3.0])
    )
    torch.testing.assert_close(features.inputs(torch.tensor([1])), torch.tensor([[1.0, 2.0]]))


def test_inputs_are_bit_equal_to_torchvision():
    x = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values) for values in loaders.CIFAR)
    images = tiny(x=x, y=torch.zeros(5, dtype=torch.int64), mean=mean, std=std)
    expected = torchvision.transforms.functional.normalize(x.float().div(255), mean.tolist(), std.tolist())
    assert torch.equal(images.inputs(torch.arange(5)), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_inputs_never_share_memory_with_the_data(dtype):
    x = torch.ones(4, 3, dtype=dtype)
    raw = tiny(x=x, y=torch.zeros(4, dtype=torch.int64), mean=torch.zeros(1), std=torch.ones(1))
    batch = raw.inputs(torch.arange(4))
    assert batch.dtype == torch.float32 and torch.equal(batch, torch.ones(4, 3))
    batch.zero_()
    assert bool((raw.x == 1).all())


def test_inputs_refuse_a_mask():
    with pytest.raises(ValueError, match=r"index is torch.bool, must be torch.int64"):
        tiny().inputs(torch.ones(6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": torch.tensor([0, 1, 3, 0, 1, 2])}, r"'tiny': labels 0..3, must be in 0..2"),
        ({"y": torch.tensor([0, 1, -1, 0, 1, 2])}, r"labels -1..2"),
        ({"y": torch.tensor([0, 1])}, r"y has shape \(2,\), x has 6 examples"),
        ({"y": torch.zeros(6)}, r"y is torch.float32, must be torch.int64"),
        ({"groups": torch.zeros(5, dtype=torch.int64)}, r"groups has shape \(5,\)"),
        ({"x": torch.zeros(6, 1, 2, 2)}, r"x is torch.float32"),
        ({"x": torch.zeros(6, 2, 2, dtype=torch.uint8)}, r"x has shape \(6, 2, 2\)"),
        ({"x": torch.zeros(6, 4, dtype=torch.float64)}, r"x is torch.float64"),
        ({"x": torch.full((6, 4), torch.nan)}, r"x holds values that are not finite"),
        ({"mean": torch.zeros(3)}, r"mean has shape \(3,\)"),
        ({"std": torch.zeros(1)}, r"std must be greater than 0"),
        ({"mean": torch.tensor([torch.nan])}, r"mean is not finite"),
        ({"mean": torch.zeros(1, dtype=torch.float64)}, r"mean is torch.float64"),
        ({"x": torch.zeros(0, 4), "y": torch.zeros(0, dtype=torch.int64)}, r"there are no examples"),
    ],
)
def test_bad_fields_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_dataset_is_frozen():
    with pytest.raises(FrozenInstanceError):
        tiny().num_classes = 4
    assert len(tiny()) == 6


def test_fingerprint_changes_with_anything_learned_from():
    base = tiny()
    pixel = base.x.clone()
    pixel[5, 0, 1, 1] += 1
    variants = [
        base,
        tiny(x=pixel),
        tiny(y=base.y.flip(0)),
        tiny(mean=torch.tensor([0.4])),
        tiny(std=torch.tensor([0.2])),
        tiny(name="other"),
        tiny(num_classes=4),
        tiny(x=base.x.view(6, 1, 4, 1)),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert tiny().fingerprint == base.fingerprint and len(base.fingerprint) == 64


def test_to_keeps_values_and_fingerprint():
    base = tiny(groups=torch.arange(6))
    expected = base.fingerprint
    moved = base.to("cpu")
    assert (
        moved.fingerprint == expected
        and torch.equal(moved.x, base.x)
        and torch.equal(moved.groups, base.groups)
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_inputs_on_cuda():
    base = tiny()
    moved = base.to("cuda")
    assert moved.fingerprint == base.fingerprint
    assert moved.inputs(torch.arange(6)).is_cuda  # an index from the CPU is brought over
    torch.testing.assert_close(moved.inputs(torch.arange(6)).cpu(), base.inputs(torch.arange(6)))


# --- load, subset, root ---


def test_digits():
    digits = load("digits")
    assert digits.x.shape == (1797, 1, 8, 8) and digits.x.dtype == torch.uint8 and digits.num_classes == 10
    assert (
        len(digits.x.unique()) == 17 and digits.x.min() == 0 and digits.x.max() == 255
    )  # 0..16, all kept apart
    assert digits.y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    inputs = digits.inputs(torch.arange(1797))
    assert abs(inputs.mean()) < 1e-3 and abs(inputs.std() - 1) < 1e-3


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'cifar-10', the nearest is 'cifar10'; there are digits, mnist"):
        load("cifar-10")


def test_subset_is_stratified_and_deterministic():
    whole, part = load("digits"), load("digits", subset=500, seed=3)
    assert len(part) == 500 and part.name == "digits"
    exact = whole.y.bincount() * 500 / 1797
    assert bool((part.y.bincount() - exact).abs().max() < 1)
    assert load("digits", subset=500, seed=3).fingerprint == part.fingerprint
    assert load("digits", subset=500, seed=4).fingerprint != part.fingerprint
    assert load("digits", subset=1797, seed=4).fingerprint == whole.fingerprint


def test_pictures_of_another_size():
    whole, half = data.load("digits", subset=50), data.load("digits", subset=50, side=4)
    assert half.x.shape == (50, 1, 4, 4) and half.x.dtype == torch.uint8
    assert torch.equal(whole.y, half.y) and half.fingerprint != whole.fingerprint
    brightness = [one.x.float().mean((1, 2, 3)) for one in (whole, half)]
    assert float((brightness[0] - brightness[1]).abs().max()) < 12  # of 255; the filter weighs the rim less
    with pytest.raises(ValueError, match="side is 4, but toy holds features"):
        datasets._resized(
            Dataset("toy", torch.zeros(3, 2), torch.zeros(3).long(), 1, *[torch.ones(1)] * 2), 4
        )


def test_stratified_index_by_hand():
    y = torch.tensor([0] * 6 + [1] * 3 + [2])  # 5 of 10: 3, 1.5 and 0.5, so one left, ties to the lower class
    index = datasets.stratified_index(y, 3, 5, seed=0)
    assert y[index].tolist() == [0, 0, 0, 1, 1] and index.tolist() == sorted(set(index.tolist()))
    drawn = {tuple(datasets.stratified_index(y, 3, 5, seed).tolist()) for seed in range(50)}
    assert {i for index in drawn for i in index} == set(
        range(9)
    )  # every example of a kept class has its chance


@pytest.mark.parametrize("subset", [0, -1, 1798, 2.0, True])
def test_subset_out_of_range(subset):
    with pytest.raises(ValueError, match=r"subset is .*, must be an integer in 1..1797"):
        load("digits", subset=subset)


def test_root_is_argument_then_environment_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path / "environment"))
    assert download.data_root(tmp_path / "argument") == (tmp_path / "argument").resolve()
    assert download.data_root() == (tmp_path / "environment").resolve()
    monkeypatch.delenv("MIALIB_DATA")
    assert download.data_root().name == "mialib"


# --- the official formats, in miniature ---


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_tgz(path: Path, members: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def table(rows) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.fixture
def cifar_root(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    x = pixels(7, 3, 32, 32)
    lists = {"train_list": ["data_batch_1", "data_batch_2"], "test_list": ["test_batch"]}
    batches = {"data_batch_1": slice(0, 2), "data_batch_2": slice(2, 5), "test_batch": slice(5, 7)}
    for name, part in batches.items():
        content = {"data": x[part].reshape(-1, 3072), "labels": list(range(7))[part]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    for attribute, names in lists.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR10, attribute, [[n, md5(folder / n)] for n in names])
    meta = torchvision.datasets.CIFAR10.meta | {"md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", meta)
    return tmp_path


def test_cifar10_train_first_channels_in_place(cifar_root):
    cifar = load("cifar10", cifar_root)
    assert torch.equal(cifar.x, torch.from_numpy(pixels(7, 3, 32, 32))) and cifar.x.is_contiguous()
    assert cifar.y.tolist() == list(range(7)) and cifar.num_classes == 10


def test_cifar10_names_the_corrupt_batch_and_leaves_it(cifar_root):
    batch = cifar_root / "cifar-10-batches-py" / "data_batch_2"
    good = md5(batch)
    batch.write_bytes(b"other")
    with pytest.raises(ValueError) as error:
        load("cifar10", cifar_root)
    for part in (str(batch), good, md5(batch), "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"):
        assert part in str(error.value)
    assert batch.read_bytes() == b"other"


def test_cifar10_names_the_missing_batch(cifar_root):
    (cifar_root / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match=r"not found: .*test_batch"):
        load("cifar10", cifar_root)


def test_cifar100_is_unpacked_from_its_archive(tmp_path, monkeypatch):
    x = pixels(3, 3, 32, 32)
    folder = tmp_path / "made" / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, part, labels in (("train", slice(0, 2), [99, 5]), ("test", slice(2, 3), [7])):
        (folder / name).write_bytes(pickle.dumps({"data": x[part].reshape(-1, 3072), "fine_labels": labels}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "cifar-100-python.tar.gz", "w:gz") as archive:
        archive.add(folder, "cifar-100-python")
    kind = torchvision.datasets.CIFAR100
    monkeypatch.setattr(kind, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(kind, "test_list", [["test", md5(folder / "test")]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(folder / "meta")})
    monkeypatch.setattr(kind, "tgz_md5", md5(root / "cifar-100-python.tar.gz"))
    cifar = load("cifar100", root)
    assert (
        torch.equal(cifar.x, torch.from_numpy(x))
        and cifar.y.tolist() == [99, 5, 7]
        and cifar.num_classes == 100
    )
    assert torch.equal(cifar.mean, torch.tensor([0.4914, 0.4822, 0.4465]))


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_sets(tmp_path, monkeypatch, name, kind):
    folder = tmp_path / kind / "raw"
    folder.mkdir(parents=True)
    x, y = pixels(5, 28, 28), np.array([3, 1, 4, 1, 5], np.uint8)
    kind = getattr(torchvision.datasets, kind)
    for (file, _), array in zip(kind.resources, (x[:3], y[:3], x[3:], y[3:]), strict=True):
        (folder / file).write_bytes(gzip.compress(idx(array)))
    monkeypatch.setattr(kind, "resources", [(file, md5(folder / file)) for file, _ in kind.resources])
    got = load(name, tmp_path)
    assert torch.equal(got.x, torch.from_numpy(x)[:, None]) and got.y.tolist() == [3, 1, 4, 1, 5]


def test_idx_reader_refuses_what_is_not_idx(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"hello world"))
    with pytest.raises(ValueError, match="not an IDX file"):
        formats.read_idx(tmp_path / "a")
    (tmp_path / "b").write_bytes(gzip.compress(idx(pixels(2, 3))[:-1]))
    with pytest.raises(ValueError, match=r"promises shape \[2, 3\], there are 5 bytes"):
        formats.read_idx(tmp_path / "b")


def test_svhn(tmp_path, monkeypatch):
    x, labels = pixels(5, 3, 32, 32), [10, 1, 9, 2, 10]
    split_list = {}
    for split, part in (("train", slice(0, 3)), ("test", slice(3, 5))):
        file = tmp_path / f"{split}_32x32.mat"
        rows = np.array(labels[part], np.uint8)[:, None]
        scipy.io.savemat(file, {"X": x[part].transpose(2, 3, 1, 0), "y": rows})
        split_list[split] = [torchvision.datasets.SVHN.split_list[split][0], file.name, md5(file)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", split_list)
    svhn = load("svhn", tmp_path)
    assert torch.equal(svhn.x, torch.from_numpy(x)) and svhn.y.tolist() == [
        0,
        1,
        9,
        2,
        0,
    ]  # 10 means the digit 0


def test_location(tmp_path):
    x = pixels(4, 446) % 2
    rows = [[f'"{label}"', *row] for label, row in zip((1, 30, 7, 7), x.tolist(), strict=True)]
    path = write_tgz(tmp_path / "location" / "dataset_location.tgz", {"bangkok": table(rows)})
    download.record(path)  # a record beside the file stands before the official checksum
    location = load("location", tmp_path)
    assert location.x.dtype == torch.float32 and torch.equal(location.x, torch.from_numpy(x).float())
    assert location.y.tolist() == [0, 29, 6, 6] and location.num_classes == 30
    assert torch.equal(location.inputs(torch.tensor([2])), location.x[2:3])


def purchase(rows: int = 3) -> dict[str, str]:
    x = pixels(rows, 600) % 2
    return {"dataset_purchase": table([[100 - i, *row] for i, row in enumerate(x.tolist())])}


def test_purchase100(tmp_path):
    write_tgz(tmp_path / "purchase" / "dataset_purchase.tgz", purchase())
    got = load("purchase100", tmp_path)
    assert torch.equal(got.x, torch.from_numpy(pixels(3, 600) % 2).float()) and got.y.tolist() == [99, 98, 97]


def test_texas100(tmp_path, monkeypatch):
    x = pixels(3, 6169) % 2
    members = {
        "texas/100/feats": table(x.tolist()),
        "texas/100/labels": "100\n1\n50\n",
        "texas/100/other": "?",
    }
    write_tgz(tmp_path / "texas" / "dataset_texas.tgz", members)
    small = load("texas100", tmp_path)
    assert small.x.dtype == torch.float32 and small.y.tolist() == [99, 0, 49] and small.num_classes == 100
    monkeypatch.setattr(datasets, "FLOAT_FEATURES_LIMIT", 4 * 3 * 6169)
    large = load("texas100", tmp_path)
    assert large.x.dtype == torch.uint8 and torch.equal(large.x, torch.from_numpy(x))
    assert torch.equal(large.inputs(torch.arange(3)), small.inputs(torch.arange(3)))


def test_chmnist(tmp_path, monkeypatch):
    path = tmp_path / "chmnist" / "Kather_texture_2016_image_tiles_5000.zip"
    path.parent.mkdir()
    folders = [
        "01_TUMOR",
        "02_STROMA",
        "03_COMPLEX",
        "04_LYMPHO",
        "05_DEBRIS",
        "06_MUCOSA",
        "07_ADIPOSE",
        "08_EMPTY",
    ]
    with zipfile.ZipFile(path, "w") as archive:
        for label, folder in reversed(list(enumerate(folders))):
            for number in (2, 1):
                tile = io.BytesIO()
                Image.new("RGB", (150, 150), (30 * label, number, 255)).save(tile, "TIFF")
                name = f"Kather_texture_2016_image_tiles_5000/{folder}/{number}_CRC.tif_Row_1_Col_1.tif"
                archive.writestr(name, tile.getvalue())
    download.record(path)
    tiles = load("chmnist", tmp_path)
    assert tiles.x.shape == (16, 3, 32, 32) and tiles.num_classes == 8
    assert tiles.y.tolist() == [label for label in range(8) for _ in range(2)]
    assert tiles.x[:, :, 5, 5].tolist() == [
        [30 * label, number, 255] for label in range(8) for number in (1, 2)
    ]


def test_faces_have_identities(tmp_path):
    (tmp_path / "faces").mkdir()
    x, y = pixels(4, 112, 92), np.array([0, 0, 1, 1])
    np.savez_compressed(tmp_path / "faces" / "att_faces.npz", x=x, y=y)
    download.record(tmp_path / "faces" / "att_faces.npz")
    faces = load("att_faces", tmp_path)
    assert torch.equal(faces.x, torch.from_numpy(x)[:, None]) and faces.num_classes == 2
    assert torch.equal(faces.groups, faces.y)
    inputs = faces.inputs(torch.arange(4))
    assert 0 <= inputs.min() and inputs.max() == 1
    part = load("att_faces", tmp_path, subset=2)
    assert part.groups.tolist() == part.y.tolist() == [0, 1]


# --- folders of pictures ---


def write_picture(path: Path, size: tuple[int, int], colour) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "JPEG", quality=95)


@pytest.fixture
def picture_root(tmp_path) -> Path:
    folder = tmp_path / "imagenette-224"
    for part, count in (("train", 3), ("val", 1)):
        for label, wnid in enumerate(("n01", "n02")):
            for number in range(count):
                write_picture(
                    folder / part / wnid / f"{wnid}_{number}.JPEG", (300, 240), (200 * label, 20 * number, 9)
                )
    return tmp_path


def test_image_folder_joins_train_and_val(picture_root):
    pictures = load_image_folder(picture_root / "imagenette-224", 32)
    assert pictures.x.shape == (8, 3, 32, 32) and pictures.y.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert pictures.name == "imagenette-224" and torch.equal(
        pictures.mean, torch.tensor([0.485, 0.456, 0.406])
    )
    red, green = pictures.x[:, 0, 9, 9].tolist(), pictures.x[:, 1, 9, 9].tolist()
    assert np.abs(np.array(red) - [0, 0, 0, 200, 200, 200, 0, 200]).max() <= 4  # JPEG is not exact
    assert np.abs(np.array(green) - [0, 20, 40, 0, 20, 40, 0, 0]).max() <= 4


def test_imagenette_decodes_only_the_subset(picture_root):
    whole, part = load("imagenette", picture_root), load("imagenette", picture_root, subset=4, seed=1)
    assert whole.x.shape == (8, 3, 224, 224) and part.y.bincount().tolist() == [2, 2]
    index = datasets.stratified_index(whole.y, 2, 4, 1)
    assert torch.equal(part.x, whole.x[index])


def test_centre_square_is_kept(tmp_path):
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[:, 20:80] = 255  # the centre square of a 100x60 picture is white, its flanks black
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "set" / "a" / "1.png")
    got = load_image_folder(tmp_path / "set", 30)
    assert got.x.shape == (1, 3, 30, 30) and bool((got.x[..., 1:-1] == 255).all())
    assert (
        got.x.min() > 200
    )  # the filter reaches a little over the edge, as in scaling first and cropping then
    assert load_image_folder(tmp_path / "set", 30, grey=True).x.shape == (1, 1, 30, 30)


def test_facescrub_folder(tmp_path):
    for person in ("Ann", "Bob"):
        write_picture(tmp_path / "facescrub" / person / "1.jpg", (80, 80), (100, 100, 100))
    faces = load("facescrub", tmp_path)
    assert faces.x.shape == (2, 1, 64, 64) and faces.groups.tolist() == [0, 1]
    assert abs(faces.inputs(torch.tensor([0])).mean() - 100 / 255) < 0.01


def test_broken_picture_is_named(picture_root):
    broken = picture_root / "imagenette-224" / "train" / "n02" / "n02_1.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot decode .*n02_1.JPEG"):
        load("imagenette", picture_root)


def test_parts_with_other_classes_are_refused(picture_root):
    write_picture(picture_root / "imagenette-224" / "val" / "n03" / "1.JPEG", (30, 30), (0, 0, 0))
    with pytest.raises(ValueError, match=r"differ in the classes \(folders\) \['n03'\]"):
        load("imagenette", picture_root)


def test_missing_folder_says_where_to_get_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"(?s)imagenette-224.*https://github.com/fastai/imagenette.*MIALIB_DATA"
    ):
        load("imagenette", tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_image_folder(tmp_path / "nowhere")


def test_more_pictures_than_memory():
    with pytest.raises(ValueError, match="pass a smaller `subset`"):
        formats.decode_images(range(10**9), open, 224, grey=False, title="too many")


# --- missing, corrupt, downloaded ---


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of tmp_path/web, standing in for the origin of the tabular sets."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(loaders, "SHOKRI", f"http://127.0.0.1:{web.server_port}/")
        yield folder
        web.shutdown()


def test_download_shows_progress_and_records_the_checksum(server, tmp_path, capfd):
    archive = write_tgz(server / "dataset_purchase.tgz", purchase())
    root = tmp_path / "root"
    first = load("purchase100", root)
    assert "100%" in capfd.readouterr().err
    record = root / "purchase" / "dataset_purchase.tgz.sha256"
    assert record.read_text() == f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  dataset_purchase.tgz\n"
    archive.unlink()
    assert load("purchase100", root).fingerprint == first.fingerprint  # no second download


def test_a_file_that_differs_from_its_record_is_refused(tmp_path):
    path = write_tgz(tmp_path / "purchase" / "dataset_purchase.tgz", purchase())
    load("purchase100", tmp_path)
    write_tgz(path, purchase(rows=4))
    with pytest.raises(
        ValueError, match=r"(?s)corrupt file.*recorded in .*dataset_purchase.tgz.sha256.*left in place"
    ):
        load("purchase100", tmp_path)


def test_a_root_that_cannot_be_written_to_is_read(tmp_path, monkeypatch):
    path = write_tgz(tmp_path / "purchase" / "dataset_purchase.tgz", purchase())

    def refuse(self, *args):  # a folder's mode does not stop an administrator, so the refusal is acted out
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    assert len(load("purchase100", tmp_path)) == 3
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_truncated_archive_is_corrupt_and_leaves_no_record(tmp_path):
    path = write_tgz(tmp_path / "purchase" / "dataset_purchase.tgz", purchase(rows=50))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"(?s)'purchase100': corrupt file.*cannot be read.*privacytrustlab"):
        load("purchase100", tmp_path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_table_of_another_width_is_corrupt(tmp_path):
    write_tgz(
        tmp_path / "purchase" / "dataset_purchase.tgz", {"dataset_purchase": table([[1, 0, 1], [2, 1, 1]])}
    )
    with pytest.raises(ValueError, match="has 3 columns, expected 601"):
        load("purchase100", tmp_path)


def test_no_such_page(server, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"(?s)'texas100': not found: .*dataset_texas.tgz.*HTTPError: 404"
    ):
        load("texas100", tmp_path / "root")


def test_download_with_another_checksum_is_not_kept(server, tmp_path):
    (server / "dataset_location.tgz").write_bytes(b"something else")
    with pytest.raises(
        FileNotFoundError, match=r"(?s)download failed.*927203f85a868f8ee17a0ded1dc61699efe602167"
    ):
        load("location", tmp_path / "root")
    assert not (tmp_path / "root" / "location" / "dataset_location.tgz").exists()


def test_offline_error_says_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(loaders, "SHOKRI", "http://127.0.0.1:9/")  # the discard port: nobody answers
    with pytest.raises(FileNotFoundError) as error:
        load("location", tmp_path)
    text = str(error.value)
    for part in (
        "'location'",
        str(tmp_path / "location" / "dataset_location.tgz"),
        "sha256:927203f85a868f8ee17a0ded1dc61699efe602167beabe34fbf45b4b1de94b33",
        "http://127.0.0.1:9/dataset_location.tgz",
        "MIALIB_DATA",
        "download failed",
    ):
        assert part in text
    assert (
        error.value.__cause__ is None and error.value.__suppress_context__
    )  # the message, not urllib's traceback


def test_corrupt_file_error_says_everything_and_keeps_the_file(tmp_path):
    path = tmp_path / "location" / "dataset_location.tgz"
    path.parent.mkdir()
    path.write_bytes(b"not the archive")
    with pytest.raises(ValueError) as error:
        load("location", tmp_path)
    text = str(error.value)
    found = hashlib.sha256(b"not the archive").hexdigest()
    for part in (str(path), "sha256:927203f85a868f8e", found, "https://github.com/privacytrustlab/datasets"):
        assert part in text
    assert path.read_bytes() == b"not the archive"


# --- the real files ---


@pytest.fixture(scope="module")
def real_root() -> Path:
    places = [Path(os.environ["MIALIB_DATA"])] if "MIALIB_DATA" in os.environ else []
    places.append(REPO_ROOT.parent / "shared" / "data")
    for place in places:
        if place.is_dir():
            return place
    pytest.skip("no real data: set MIALIB_DATA")


def real(root: Path, name: str, file: str) -> Dataset:
    if not (root / file).exists():
        pytest.skip(f"no {file} in {root}")
    return load(name, root)


def listing(root: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in root.rglob("*") if "imagenette" not in str(p))


def test_real_root_is_only_read(real_root):
    before = listing(real_root)
    for name, file in (
        ("location", "location"),
        ("mnist", "MNIST/raw"),
        ("att_faces", "faces"),
        ("lfw_faces", "faces"),
    ):
        if (real_root / file).exists():
            load(name, real_root)
    assert before and listing(real_root) == before


def test_real_cifar10(real_root):
    cifar = real(real_root, "cifar10", "cifar-10-batches-py")
    assert cifar.x.shape == (60_000, 3, 32, 32)
    assert (
        cifar.y[:50_000].bincount().tolist() == [5000] * 10
        and cifar.y[50_000:].bincount().tolist() == [1000] * 10
    )
    means = cifar.x[:50_000].mean((0, 2, 3), dtype=torch.float32) / 255
    assert bool((means - cifar.mean).abs().max() < 1e-3)


def test_real_mnist(real_root):
    mnist = real(real_root, "mnist", "MNIST/raw")
    assert mnist.x.shape == (70_000, 1, 28, 28)
    train = mnist.x[:60_000].float() / 255
    assert abs(train.mean() - mnist.mean) < 1e-3 and abs(train.std() - mnist.std) < 1e-3
    assert mnist.y[:60_000].bincount()[0] == 5923 and mnist.y[60_000:].bincount()[0] == 980


def test_real_location(real_root):
    location = real(real_root, "location", "location/dataset_location.tgz")
    counts = location.y.bincount(minlength=30)
    assert location.x.shape == (5010, 446) and (counts.min(), counts.max(), len(counts)) == (97, 308, 30)
    assert location.x.unique().tolist() == [0, 1] and abs(location.x.mean() - 0.1204) < 1e-4


def test_real_faces(real_root):
    att = real(real_root, "att_faces", "faces/att_faces.npz")
    assert att.x.shape == (400, 1, 112, 92) and att.y.bincount().tolist() == [10] * 40
    lfw = real(real_root, "lfw_faces", "faces/lfw_a_64x64_min5.npz")
    assert lfw.x.shape == (5985, 1, 64, 64) and lfw.num_classes == 423
    assert lfw.y.bincount()[0] == 530 and (lfw.y < 62).sum() == 3023 and (lfw.y < 158).sum() == 4324
    assert torch.equal(lfw.groups, lfw.y)


def test_real_imagenette(real_root):
    if not (real_root / "imagenette-224").exists():
        pytest.skip("no imagenette-224")
    part = load("imagenette", real_root, subset=100, seed=0)
    assert part.x.shape == (100, 3, 224, 224) and part.y.bincount().tolist() == [10] * 10
    inputs = part.inputs(torch.arange(100))
    assert abs(inputs.mean()) < 0.3 and 0.8 < inputs.std() < 1.6


def test_replace_validates_again():
    with pytest.raises(ValueError, match="labels"):
        replace(tiny(), num_classes=2)


# Private and auxiliary


def test_apart_by_class_shares_no_class_and_numbers_both_from_0(digits):
    private, auxiliary = data.apart(digits, 7)
    assert private.num_classes == 7 and auxiliary.num_classes == 3
    assert len(private) + len(auxiliary) == len(digits)
    assert torch.equal(private.x, digits.x[digits.y < 7]) and torch.equal(private.y, digits.y[digits.y < 7])
    assert torch.equal(auxiliary.x, digits.x[digits.y >= 7])
    assert torch.equal(auxiliary.y, digits.y[digits.y >= 7] - 7)
    assert private.name == "digits, private" and private.fingerprint != digits.fingerprint


def test_apart_at_random_keeps_equal_examples_on_one_side(toy):
    twice = Dataset("twice", toy.x.repeat(2, 1), toy.y.repeat(2), 3, toy.mean, toy.std)
    first, second = data.apart(twice, share=0.25, seed=1, names=("a", "b"))
    assert len(second) == 60 and len(first) == 180 and first.num_classes == 3
    rows = [set(map(tuple, part.x.tolist())) for part in (first, second)]
    assert len(rows[0]) == 90 and len(rows[1]) == 30 and not rows[0] & rows[1]
    assert not torch.equal(data.apart(twice, share=0.25, seed=2)[1].x, second.x)


def test_apart_refuses_what_leaves_a_side_empty(digits):
    for classes in (0, 10):
        with pytest.raises(ValueError, match=f"classes is {classes}; digits has 10, of which 1 to 9"):
            data.apart(digits, classes)
    with pytest.raises(ValueError, match="share is 1"):
        data.apart(digits, share=1.0)
