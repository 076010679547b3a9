"""Every data set by name: where its official files are, how they are read, how its inputs are normalised.

A loader takes the data root and returns `Raw`. Train and test parts are joined into one pool, train first.
Files are verified by `download.fetch`, paths below the root are torchvision's where torchvision knows the
set. `LOADERS` at the end is the registry: a new data set is a function and a line there.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mialib.data import archives, batches, folders, formats, pictures
from mialib.data.download import Source, fetch, missing, reading

Rows = Callable[[np.ndarray], np.ndarray]


class Raw(NamedTuple):
    """A data set as its loader leaves it; shapes and units as in `data.Dataset`."""

    # all examples; where decoding is slow, a function of the positions int64 (m,) that are wanted
    x: np.ndarray | Rows
    y: np.ndarray
    num_classes: int
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    groups: np.ndarray | None = None


# Mean and standard deviation of each channel. CIFAR-10's serve CIFAR-100 too, as in mia_prune's datasets.py
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as in torchvision's classification presets
UNIT = ((0.0,), (1.0,))  # pixels stay in [0, 1]

# MD5 of the four files without .gz, in torchvision's order, which lists those of the packed ones only
MNIST_UNPACKED = (
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
)
# as in Debian's package dataset-fashion-mnist, which packs them anew
FASHION_UNPACKED = (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
)

# the three tabular sets of Shokri et al. 2017
SHOKRI = "https://github.com/privacytrustlab/datasets/raw/master/"


def digits(root: Path) -> Raw:
    """scikit-learn's 1,797 handwritten digits, 8x8; its values 0..16 become round(255 v / 16), all different.

    Mean and standard deviation are the set's own.
    """
    from sklearn.datasets import load_digits  # here: seconds to import

    raw = load_digits()
    x = np.rint(raw.images * 255 / 16).astype(np.uint8)[:, None]
    return Raw(x, raw.target, 10, (0.3053,), (0.3759,))


def cifar10(root: Path) -> Raw:
    return _cifar("cifar10", _published().CIFAR10, root, 10, "labels")


def cifar100(root: Path) -> Raw:
    """The 100 fine classes."""
    return _cifar("cifar100", _published().CIFAR100, root, 100, "fine_labels")


def _published():
    """torchvision's data sets, which name their official files; here, since torchvision takes seconds to import."""
    import torchvision.datasets

    return torchvision.datasets


def _cifar(name: str, kind, root: Path, num_classes: int, labels: str) -> Raw:
    if not (root / kind.base_folder).is_dir():
        advice = f"(holds {kind.base_folder}/)"
        archive = Source(name, kind.filename, kind.url, f"md5:{kind.tgz_md5}", advice, limit=2**28)
        with reading(archive, fetch(archive, root)) as path:
            archives.unpack(path, root, kind.base_folder, archive.limit, most=100)
    advice = (
        f"It is part of {kind.url} (md5 {kind.tgz_md5}), which is unpacked here when there is no folder"
        f" {kind.base_folder}: one that was left half unpacked can be moved away."
    )

    def source(file: str, md5: str) -> Source:
        return Source(name, f"{kind.base_folder}/{file}", None, f"md5:{md5}", advice, limit=2**28)

    fetch(source(kind.meta["filename"], kind.meta["md5"]), root)
    parts = []
    for file in (source(*listed) for listed in [*kind.train_list, *kind.test_list]):
        with reading(file, fetch(file, root)) as path:
            x, y = batches.read_batch(path, labels, file.limit)
            parts.append((x, _classes(y, 0, num_classes)))
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Raw(x.reshape(-1, 3, 32, 32), y, num_classes, *CIFAR)


def _classes(y: np.ndarray, first: int, num_classes: int) -> np.ndarray:
    """Labels from 0, int64 (n,), of labels that a file numbers from `first`; ValueError for others."""
    last = first + num_classes - 1
    if y.ndim != 1 or y.dtype.kind not in "iu" or not len(y):
        raise ValueError(f"labels are {y.dtype} of shape {y.shape}, expected whole numbers of shape (n,)")
    if y.min() < first or y.max() > last:
        raise ValueError(f"labels {y.min()}..{y.max()}, expected {first}..{last}")
    return y.astype(np.int64) - first


def _images(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pictures uint8 (n, *shape), n at least 1; ValueError for others."""
    if x.dtype != np.uint8 or x.shape[1:] != shape or not x.size:
        raise ValueError(
            f"pictures are {x.dtype} of shape {x.shape}, expected uint8 of shape {('n', *shape)}"
        )
    return x


def _same_length(x: np.ndarray, y: np.ndarray) -> None:
    if len(x) != len(y):
        raise ValueError(f"{len(x)} examples, but {len(y)} labels")


def _binary(x: np.ndarray) -> np.ndarray:
    if not x.size or x.max() > 1:
        raise ValueError("features must be 0 or 1" + (f", found {x.max()}" if x.size else ", there are none"))
    return x


def mnist(root: Path) -> Raw:
    """Normalised by its training pixels' mean and standard deviation, as in PyTorch's MNIST example."""
    return _idx("mnist", _published().MNIST, MNIST_UNPACKED, root, (0.1307,), (0.3081,))


def fashion_mnist(root: Path) -> Raw:
    """Normalised by its training pixels' mean and standard deviation, rounded to four digits as usual."""
    return _idx("fashion_mnist", _published().FashionMNIST, FASHION_UNPACKED, root, (0.2860,), (0.3530,))


def _idx(
    name: str, kind, unpacked: Sequence[str], root: Path, mean: Sequence[float], std: Sequence[float]
) -> Raw:
    # torchvision's own class needs unpacked files beside the .gz ones, and a read-only root cannot get them
    arrays = []
    for (file, md5), inside in zip(kind.resources, unpacked, strict=True):
        source = Source(
            name,
            f"{kind.__name__}/raw/{file}",
            kind.mirrors[0] + file,
            f"md5:{md5}",
            unpacked=f"md5:{inside}",
            limit=2**26,
        )
        with reading(source, fetch(source, root)) as path:
            array = formats.read_idx(path, source.limit)
            if len(arrays) % 2 == 0:  # train images, train labels, test images, test labels
                arrays.append(_images(array, (28, 28)))
            else:
                arrays.append(_classes(array, 0, 10))
                _same_length(*arrays[-2:])
    return Raw(np.concatenate(arrays[0::2])[:, None], np.concatenate(arrays[1::2]), 10, mean, std)


def svhn(root: Path) -> Raw:
    """Cropped street view digits, train and test, no "extra"; the digit 0 is class 0 (10 in the files)."""
    parts = []
    for split in ("train", "test"):
        url, file, md5 = _published().SVHN.split_list[split]
        source = Source("svhn", file, url, f"md5:{md5}", limit=2**28)
        with reading(source, fetch(source, root)) as path:
            x, y = formats.read_mat(path, ("X", "y"), source.limit)
            x = _images(np.ascontiguousarray(x.transpose(3, 2, 0, 1)), (3, 32, 32))
            y = _classes(y.reshape(-1), 1, 10)
            _same_length(x, y)
            parts.append((x, (y + 1) % 10))
    x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Raw(x, y, 10, (0.5,) * 3, (0.5,) * 3)


def location(root: Path) -> Raw:
    """Location-30: 446 binary features of check-ins, 30 classes.

    Seen in the real file: one member `bangkok`, column 0 the class "1".."30" in quotes, no header. The origin
    publishes no checksum; this one is of the file as its repository holds it, git blob 0cfc2caa0c8c.
    """
    checksum = "sha256:927203f85a868f8ee17a0ded1dc61699efe602167beabe34fbf45b4b1de94b33"
    url = SHOKRI + "dataset_location.tgz"
    source = Source("location", "location/dataset_location.tgz", url, checksum, limit=2**24)
    with reading(source, fetch(source, root)) as path:
        table = formats.read_tar_table(path, "bangkok", 1 + 446, source.limit)
        x, y = _binary(table[:, 1:]), _classes(table[:, 0], 1, 30)
    return Raw(x, y, 30)


def purchase100(root: Path) -> Raw:
    """Purchase-100: 600 binary features, 100 classes.

    Relied on, from public code that reads it and not seen in the real file: one member `dataset_purchase`,
    column 0 the class 1..100, no header. No checksum is published.
    """
    url = SHOKRI + "dataset_purchase.tgz"
    source = Source("purchase100", "purchase/dataset_purchase.tgz", url, None, limit=2**29)
    with reading(source, fetch(source, root)) as path:
        table = formats.read_tar_table(path, "dataset_purchase", 1 + 600, source.limit)
        x, y = _binary(table[:, 1:]), _classes(table[:, 0], 1, 100)
    return Raw(x, y, 100)


def texas100(root: Path) -> Raw:
    """Texas-100: 6,169 binary features of hospital stays, 100 procedures.

    Relied on, from public code that reads it and not seen in the real file: members `texas/100/feats`
    (features only) and `texas/100/labels` (one class 1..100 a line), no header. No checksum is published.
    """
    source = Source("texas100", "texas/dataset_texas.tgz", SHOKRI + "dataset_texas.tgz", None)
    with reading(source, fetch(source, root)) as path:
        x = _binary(formats.read_tar_table(path, "texas/100/feats", 6169, source.limit))
        y = _classes(formats.read_tar_table(path, "texas/100/labels", 1, source.limit)[:, 0], 1, 100)
        _same_length(x, y)
    return Raw(x, y, 100)


def chmnist(root: Path) -> Raw:
    """Kather et al. 2016, textures in colorectal cancer histology: 5,000 tiles of 8 tissues, made 32x32.

    Relied on, from its Zenodo record and not seen in the real file: 150x150 .tif files in one folder a class,
    the folders' names beginning with 01_ to 08_. The checksum is the one TensorFlow Datasets lists for it
    (url_checksums/colorectal_histology.txt). Resized and normalised as in mia_prune's datasets.py.
    """
    file = "Kather_texture_2016_image_tiles_5000.zip"
    checksum = "sha256:936d0b95ae0f04f1f7b18a2b7e8c55776c3e887d102f645bcee752d1a6626a32"
    source = Source("chmnist", f"chmnist/{file}", f"https://zenodo.org/records/53169/files/{file}", checksum)
    path = fetch(source, root)
    with reading(source, path), archives.open_zip(path, source.limit) as archive:
        names = sorted(
            name for name in archive.namelist() if name.endswith(".tif") and not archives.is_hidden(name)
        )
        tissues, y = np.unique([Path(name).parent.name for name in names], return_inverse=True)
        if len(tissues) != 8:
            raise ValueError(f"expected tiles in 8 folders, found {tissues[:20].tolist()}")

    def rows(index: np.ndarray) -> np.ndarray:
        chosen = [names[i] for i in index]
        with reading(source, path), archives.open_zip(path, source.limit) as archive:
            return pictures.decode_images(chosen, archive.open, 32, grey=False, title="chmnist")

    return Raw(rows, y, 8, *IMAGENET)


def att_faces(root: Path) -> Raw:
    """AT&T (ORL) faces, grey 112x92, 40 people with 10 pictures each; class and group are the person.

    Pixels stay in [0, 1], as in the public code of Yang et al. 2019 (model inversion, CCS).
    """
    checksum = "sha256:94465b8054a90947226d3f7ad842ce86127c6b028be641034fbc7a9cc5044d4b"
    page = "https://cam-orl.co.uk/facedatabase.html"
    return _faces("att_faces", "faces/att_faces.npz", (112, 92), checksum, "att", page, root)


def lfw_faces(root: Path) -> Raw:
    """LFW-a, grey 64x64, the 423 people with at least 5 pictures; class and group are the person.

    Class 0 is the person with the most pictures, so `y < k` are the k people with the most. Pixels stay in
    [0, 1], as for `att_faces`.
    """
    checksum = "sha256:a3d638bfce89f8cd5283ad653e0b7767f5498d9efa6b89a1782bb3c33a348d12"
    page = "https://talhassner.github.io/home/projects/lfwa/index.html"
    return _faces("lfw_faces", "faces/lfw_a_64x64_min5.npz", (64, 64), checksum, "lfw", page, root)


def _faces(
    name: str, file: str, size: tuple[int, int], checksum: str, kind: str, page: str, root: Path
) -> Raw:
    advice = f'Download the original from {page} and call faces.build("{kind}", archive, root / "faces").'
    source = Source(name, file, None, checksum, advice, built=True, limit=2**26)
    with reading(source, fetch(source, root)) as path:
        x, y = formats.read_npz(path, ("x", "y"), source.limit)
        x = _images(x, size)[:, None]
        people = int(y.max()) + 1
        y = _classes(y, 0, people)
        _same_length(x, y)
    return Raw(x, y, people, *UNIT, groups=y)


def imagenette(root: Path) -> Raw:
    """Ten ImageNet classes at 224x224, from imagenette-224/{train,val}/<wordnet id>/*.JPEG."""
    advice = "Unpack imagenette2-320.tgz of https://github.com/fastai/imagenette, rename it imagenette-224."
    return image_folder(_folder("imagenette", "imagenette-224", advice, root), 224)


def imagenet(root: Path) -> Raw:
    """ImageNet (ILSVRC 2012) at 224x224, from imagenet/{train,val}/<wordnet id>/*.JPEG; use a subset."""
    advice = (
        "Register at https://image-net.org, sort both parts into folders with torchvision.datasets.ImageNet."
    )
    return image_folder(_folder("imagenet", "imagenet", advice, root), 224)


def facescrub(root: Path) -> Raw:
    """FaceScrub at grey 64x64 in [0, 1], from facescrub/<person>/*; class and group are the person."""
    advice = (
        "It is a list of addresses, https://vintage.winklerbros.net/facescrub.html: put one folder a person."
    )
    raw = image_folder(_folder("facescrub", "facescrub", advice, root), 64, grey=True)
    return raw._replace(groups=raw.y)


def _folder(name: str, folder: str, advice: str, root: Path) -> Path:
    if not (root / folder).is_dir():
        raise missing(Source(name, folder, None, None, advice), root / folder)
    return root / folder


def image_folder(path: Path, size: int, *, grey: bool = False) -> Raw:
    """Pictures in one folder a class; see `folders.list_image_folder` and `pictures.decode_images`.

    Colour is normalised with ImageNet's mean and standard deviation, grey pixels stay in [0, 1].
    """
    files, y, classes = folders.list_image_folder(path)

    def rows(index: np.ndarray) -> np.ndarray:
        chosen = [files[i] for i in index]
        return pictures.decode_images(chosen, folders.open_picture, size, grey=grey, title=path.name)

    return Raw(rows, y, len(classes), *(UNIT if grey else IMAGENET))


LOADERS: dict[str, Callable[[Path], Raw]] = {
    loader.__name__: loader
    for loader in (
        digits,
        mnist,
        fashion_mnist,
        svhn,
        cifar10,
        cifar100,
        chmnist,
        location,
        purchase100,
        texas100,
        att_faces,
        lfw_faces,
        imagenette,
        imagenet,
        facescrub,
    )
}
