"""Every data set by name, from tiny files in the official layout, and from the real files where this machine has them."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image

from mialib import REPO_ROOT
from mialib.data import Dataset, datasets, download, load, load_image_folder, loaders
from tests.data.test_formats import idx, pixels, table, write_tgz
from tests.data.test_pictures import write_picture


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def real_root() -> Path:
    places = [Path(os.environ["MIALIB_DATA"])] if "MIALIB_DATA" in os.environ else []
    places.append(REPO_ROOT.parent / "shared" / "data")
    for place in places:
        if place.is_dir():
            return place
    pytest.skip("no real data: set MIALIB_DATA")


@pytest.fixture
def trusted(monkeypatch):
    """Files made here stand for the official ones, whatever their checksums."""
    monkeypatch.setattr(download, "verify", lambda source, path: None)


def test_digits():
    digits = load("digits")
    assert digits.x.shape == (1797, 1, 8, 8) and digits.x.dtype == torch.uint8 and digits.num_classes == 10
    assert (
        len(digits.x.unique()) == 17 and digits.x.min() == 0 and digits.x.max() == 255
    )  # 0..16, all kept apart
    assert digits.y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    inputs = digits.inputs(torch.arange(1797))
    assert abs(inputs.mean()) < 1e-3 and abs(inputs.std() - 1) < 1e-3


@pytest.mark.parametrize("name", sorted(set(loaders.LOADERS) - {"digits"}))
def test_an_empty_root_without_a_network_says_what_is_missing(tmp_path, monkeypatch, name):
    def offline(*args, **options):
        raise OSError("offline")

    monkeypatch.setattr(download.pooch, "retrieve", offline)
    with pytest.raises(FileNotFoundError, match=f"data set {name!r}: not found: {tmp_path}/.*") as error:
        load(name, tmp_path)
    assert "MIALIB_DATA" in str(error.value) and "http" in str(error.value)
    assert not list(tmp_path.iterdir())  # and leaves nothing behind


# The official files, in miniature


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


def test_location(tmp_path, trusted):
    x = pixels(4, 446) % 2
    rows = [[f'"{label}"', *row] for label, row in zip((1, 30, 7, 7), x.tolist(), strict=True)]
    write_tgz(tmp_path / "location" / "dataset_location.tgz", {"bangkok": table(rows)})
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


def test_chmnist(tmp_path, trusted):
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
            archive.writestr(f"__MACOSX/tiles/._{folder}.tif", b"no picture")
            for number in (2, 1):
                tile = io.BytesIO()
                Image.new("RGB", (150, 150), (30 * label, number, 255)).save(tile, "TIFF")
                name = f"Kather_texture_2016_image_tiles_5000/{folder}/{number}_CRC.tif_Row_1_Col_1.tif"
                archive.writestr(name, tile.getvalue())
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


# Forged, broken or misunderstood


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def forge_cifar(root: Path) -> None:
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name in ("cifar-10-batches-py/data_batch_1", "../x", str(root.parent / "abs" / "x")):
            archive.addfile(tarfile.TarInfo(name))
    download.record(root / "cifar-10-python.tar.gz")


def test_a_forged_archive_is_refused_whatever_is_recorded_beside_it(tmp_path):
    forge_cifar(tmp_path / "root")
    with pytest.raises(
        ValueError, match="(?s)corrupt file: .*cifar-10-python.tar.gz.*expected md5:c58f30108f718f9"
    ):
        load("cifar10", tmp_path / "root")
    record = ["root", "root/cifar-10-python.tar.gz", "root/cifar-10-python.tar.gz.sha256"]
    assert everything(tmp_path) == record


def test_nothing_is_written_outside_the_root_even_by_an_archive_that_is_trusted(tmp_path, trusted):
    forge_cifar(tmp_path / "root")
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="(?s)corrupt file: .*cifar-10-python.tar.gz.*cannot be read: .*x"):
        load("cifar10", tmp_path / "root")
    assert everything(tmp_path) == before


def test_a_half_unpacked_folder_of_before_says_what_to_do(cifar_root):
    (cifar_root / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(
        FileNotFoundError, match="(?s)not found: .*data_batch_2.*left half unpacked can be moved away"
    ):
        load("cifar10", cifar_root)


def test_no_pickle_of_cifar_runs_anything(cifar_root, trusted):
    class Call:
        def __reduce__(self):
            return os.mkdir, (str(cifar_root / "ran"),)

    (cifar_root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(Call()))
    with pytest.raises(
        ValueError, match="(?s)corrupt file: .*test_batch.*asks for posix.mkdir.*nothing was run"
    ):
        load("cifar10", cifar_root)
    assert not (cifar_root / "ran").exists()


def test_an_archive_of_zeros_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "purchase" / "dataset_purchase.tgz"
    info = tarfile.TarInfo("dataset_purchase")
    info.size = 1_500_000_000
    path.parent.mkdir()
    path.write_bytes(gzip.compress(info.tobuf() + bytes(2**20)))
    with pytest.raises(
        ValueError, match="(?s)corrupt file: .*dataset_purchase.tgz.*unpacks to more than 512 MiB"
    ):
        load("purchase100", tmp_path)
    assert everything(tmp_path) == ["purchase", "purchase/dataset_purchase.tgz"]


def tables(labels=(1, 100, 7), value=1, column=True) -> dict[str, dict[str, str]]:
    """The archives of the three tabular sets by name, as text members."""
    first = [[label] for label in labels]
    return {
        "location": {"bangkok": table([label + [value] * 446 for label in first])},
        "purchase100": {"dataset_purchase": table([label + [value] * 600 for label in first])},
        "texas100": {"texas/100/feats": table([[value] * 6169] * 3), "texas/100/labels": table(first)},
    }


@pytest.mark.parametrize(
    ("name", "members", "words"),
    [
        ("location", tables((0, 29, 5)), r"labels 0\.\.29, expected 1\.\.30"),
        ("location", tables((1, 31, 5)), r"labels 1\.\.31, expected 1\.\.30"),
        ("location", tables((1, 30, 5), value=2), "features must be 0 or 1, found 2"),
        ("purchase100", tables((0, 99, 5)), r"labels 0\.\.99, expected 1\.\.100"),
        ("purchase100", tables((-1, 99, 5)), "-1"),
        ("purchase100", tables(value=255), "features must be 0 or 1, found 255"),
        ("texas100", tables((0, 99, 5)), r"labels 0\.\.99, expected 1\.\.100"),
        ("texas100", tables((1, 2)), "3 examples, but 2 labels"),
        ("texas100", tables(value=3), "features must be 0 or 1, found 3"),
    ],
)
def test_tables_of_another_meaning_are_refused_and_not_recorded(tmp_path, trusted, name, members, words):
    folder = name.removesuffix("100")
    path = write_tgz(tmp_path / folder / f"dataset_{folder}.tgz", members[name])
    with pytest.raises(ValueError, match=rf"(?s)data set '{name}': corrupt file: {path}\n.*{words}"):
        load(name, tmp_path)
    assert everything(tmp_path) == [folder, f"{folder}/{path.name}"]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (pixels(3, 28, 28), np.array([0, 10, 1], np.uint8), r"train-labels.*labels 0\.\.10, expected 0\.\.9"),
        (pixels(3, 28, 28), np.array([0, 1], np.uint8), "train-labels.*3 examples, but 2 labels"),
        (pixels(3, 27, 28), np.array([0, 1, 2], np.uint8), "train-images.*expected uint8 of shape"),
        (np.array([0, 1, 2], np.uint8), pixels(3, 28, 28), "train-images.*expected uint8 of shape"),
        (pixels(3, 28, 28), pixels(3, 28, 28), "train-labels.*expected whole numbers of shape"),
        (pixels(0, 28, 28), np.zeros(0, np.uint8), "train-images.*expected uint8 of shape"),
    ],
)
def test_idx_files_of_another_meaning_are_refused(tmp_path, trusted, x, y, words):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y)))
    with pytest.raises(ValueError, match=f"(?s)corrupt file: .*{words}"):
        load("mnist", tmp_path)


def test_idx_sets_unpacked_or_packed_anew(real_root, tmp_path):
    if not (real_root / "MNIST" / "raw").exists():
        pytest.skip("no MNIST")
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for i, path in enumerate(sorted((real_root / "MNIST" / "raw").glob("*.gz"))):
        content = gzip.decompress(path.read_bytes())
        if i % 2:
            (folder / path.stem).write_bytes(content)
        else:
            (folder / path.name).write_bytes(gzip.compress(content, 1))
    before = everything(tmp_path)
    assert load("mnist", tmp_path).fingerprint == load("mnist", real_root).fingerprint
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"X": pixels(32, 32, 3, 2), "y": np.array([[0], [1]], np.uint8)},
            r"labels 0\.\.1, expected 1\.\.10",
        ),
        ({"X": pixels(32, 32, 3, 2), "y": np.array([[1]], np.uint8)}, "2 examples, but 1 labels"),
        ({"X": pixels(3, 32, 32, 2), "y": np.array([[1], [2]], np.uint8)}, "expected uint8 of shape"),
        ({"X": pixels(32, 32, 3, 2)}, r"no arrays \['y'\], it holds \['X'\]"),
    ],
)
def test_svhn_of_another_meaning_is_refused(tmp_path, trusted, content, words):
    scipy.io.savemat(tmp_path / "train_32x32.mat", content)
    with pytest.raises(ValueError, match=f"(?s)corrupt file: .*train_32x32.mat.*{words}"):
        load("svhn", tmp_path)


FACES = pixels(4, 112, 92)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": FACES}, r"no arrays \['y'\], it holds \['x.npy'\]"),
        ({"x": FACES, "y": np.array([0, 1, 2])}, "4 examples, but 3 labels"),
        ({"x": FACES, "y": np.array([0, 1, -1, 2])}, r"labels -1\.\.2"),
        ({"x": FACES, "y": np.array([0.0, 1, 2, 3])}, "labels are float64"),
        ({"x": FACES[:, 0], "y": np.array([0, 1, 2, 3])}, "expected uint8 of shape"),
        ({"x": FACES[:, :64, :64], "y": np.array([0, 1, 2, 3])}, r"expected uint8 of shape \('n', 112, 92\)"),
        ({"x": FACES / 255, "y": np.array([0, 1, 2, 3])}, "expected uint8 of shape"),
        ({"x": FACES, "y": np.array([0, 1, 2, None])}, "allow_pickle"),
    ],
)
def test_faces_of_another_meaning_are_refused(tmp_path, trusted, arrays, words):
    (tmp_path / "faces").mkdir()
    np.savez(tmp_path / "faces" / "att_faces.npz", **arrays)
    with pytest.raises(ValueError, match=f"(?s)corrupt file: .*att_faces.npz.*{words}"):
        load("att_faces", tmp_path)


# Folders of pictures


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


def test_facescrub_folder(tmp_path):
    for person in ("Ann", "Bob"):
        write_picture(tmp_path / "facescrub" / person / "1.jpg", (80, 80), (100, 100, 100))
    faces = load("facescrub", tmp_path)
    assert faces.x.shape == (2, 1, 64, 64) and faces.groups.tolist() == [0, 1]
    assert abs(faces.inputs(torch.tensor([0])).mean() - 100 / 255) < 0.01


def test_missing_folder_says_where_to_get_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"(?s)imagenette-224.*https://github.com/fastai/imagenette.*MIALIB_DATA"
    ):
        load("imagenette", tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_image_folder(tmp_path / "nowhere")


# The real files


def real(root: Path, name: str, file: str) -> Dataset:
    if not (root / file).exists():
        pytest.skip(f"no {file} in {root}")
    return load(name, root)


def listing(root: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in root.rglob("*") if "imagenette" not in str(p))


@pytest.mark.parametrize(
    ("name", "file"),
    [("location", "location"), ("mnist", "MNIST/raw"), ("att_faces", "faces"), ("lfw_faces", "faces")],
    ids=["location", "mnist", "att_faces", "lfw_faces"],
)
def test_real_root_is_only_read(real_root, name, file):
    before = listing(real_root)
    real(real_root, name, file)
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
