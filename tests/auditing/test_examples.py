"""Each form of the same examples gives the same tensors; what a network cannot be asked about is refused by name."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset

from mialib import data
from mialib.auditing import examples
from mialib.auditing.examples import Examples, examples_of, same_shape

Y = torch.arange(12) % 3
X = torch.linspace(-1, 1, 12 * 4).reshape(12, 4)
ROWS = [(X[i], int(Y[i])) for i in range(12)]


class Listed(torch.utils.data.Dataset):
    """Examples of a list, changed by a function as a transform does."""

    def __init__(self, rows=ROWS, transform=None):
        self.rows, self.transform = rows, transform

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        x, y = self.rows[i]
        return (x if self.transform is None else self.transform(x)), y


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(ROWS)


def padded(rows):
    return {"pixel_values": torch.stack([x for x, _ in rows]), "labels": [y for _, y in rows]}


FORMS = {
    "pair of tensors": (X, Y),
    "pair of arrays": [X.double().numpy(), Y.numpy().astype(np.uint8)],
    "big-endian arrays": (X.numpy().astype(">f4"), Y.numpy().astype(">i2")),
    "pair of lists": (X.tolist(), Y.tolist()),
    "list of tensors": (list(X), list(Y)),
    "one-hot": (X, torch.nn.functional.one_hot(Y)),
    "one-hot lists": (X, np.eye(3)[Y].tolist()),
    "column": (X, Y.float()[:, None]),
    "dictionary": {"image": X, "label": Y},
    "list of examples": ROWS,
    "set": Listed(),
    "set of three": Listed([(x.numpy(), np.int64(y)) for x, y in ROWS]),
    "set of one-hot": Listed([(x, np.eye(3)[y]) for x, y in ROWS]),
    "TensorDataset": TensorDataset(X, Y),
    "Subset": Subset(TensorDataset(X.flip(0), Y.flip(0)), range(11, -1, -1)),
    "ConcatDataset": ConcatDataset([Listed(ROWS[:5]), Listed(ROWS[5:])]),
    "loader": DataLoader(Listed(), batch_size=5),
    "loader of single examples": DataLoader(Listed(), batch_size=None),
    "loader with its own collate": DataLoader(Listed(), batch_size=5, collate_fn=padded),
    "stream": Streamed(),
    "loader of a stream": DataLoader(Streamed(), batch_size=5),
    "data.Dataset": data.Dataset.of_features("toy", X, Y, 3),
    "Examples": Examples(X, Y),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_give_the_same(form):
    made = examples_of(FORMS[form], "members")
    assert made.x.dtype == torch.float32 and torch.equal(made.x, X)
    assert made.y.dtype == torch.int64 and torch.equal(made.y, Y)
    assert len(made) == 12


def test_inputs_and_labels_of_a_shuffling_loader_stay_together():
    made = examples_of(DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True), "members")
    where = [(X == row).all(1).nonzero().item() for row in made.x]
    assert sorted(where) == list(range(12))
    assert torch.equal(Y[where], made.y)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float64])
def test_tensors_keep_their_type(dtype):
    assert examples_of((X.to(dtype), Y), "members").x.dtype == dtype
    assert examples_of(Listed([(x.to(dtype), y) for x, y in ROWS]), "members").x.dtype == dtype


def test_pictures_of_a_dataset_are_normalised():
    x = torch.arange(48, dtype=torch.uint8).reshape(3, 1, 4, 4)
    grey = data.Dataset("grey", x, torch.tensor([0, 1, 1]), 2, torch.tensor([0.5]), torch.tensor([0.25]))
    made = examples_of(grey, "members")
    assert torch.allclose(made.x, (x / 255 - 0.5) / 0.25)


def test_sets_of_torchvision():
    torchvision = pytest.importorskip("torchvision")
    steady = torchvision.transforms.ToTensor()
    fake = torchvision.datasets.FakeData(20, (3, 8, 8), 4, transform=steady)
    made = examples_of(Subset(fake, range(10)), "members")
    assert made.x.shape == (10, 3, 8, 8) and torch.equal(made.x[3], fake[3][0])
    fake.transform = None
    with pytest.raises(ValueError, match="PIL.*ToTensor and Normalize"):
        examples_of(fake, "members")
    fake.transform = torchvision.transforms.Compose([torchvision.transforms.RandomHorizontalFlip(), steady])
    torch.manual_seed(3)
    for given in (fake, DataLoader(Subset(fake, range(10)), batch_size=5)):
        with pytest.raises(
            ValueError, match=r"again, by a random augmentation \(Compose\(.*RandomHorizontalFlip"
        ):
            examples_of(given, "members")


def test_a_random_collate_is_detected():
    def noisy(rows):
        x = torch.stack([x for x, _ in rows])
        return x + torch.rand_like(x), torch.tensor([y for _, y in rows])

    with pytest.raises(ValueError, match="members: example 0 is another one"):
        examples_of(DataLoader(Listed(), batch_size=4, collate_fn=noisy), "members")


def test_files_folders_and_functions(tmp_path, monkeypatch):
    np.savez(tmp_path / "set.npz", x=X.numpy(), y=Y.numpy())
    (tmp_path / "examples_of_mine.py").write_text(
        "def train_set():\n    return [[0.0, 1.0], [2.0, 3.0]], [1, 0]\n"
    )
    for name, colour in (("cat", 0), ("cat", 1), ("dog", 255)):
        (tmp_path / "pictures" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (colour, 0, 0)).save(tmp_path / "pictures" / name / f"{colour}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert torch.equal(examples_of("set.npz", "members").x, X)
    assert examples_of("examples_of_mine:train_set", "members").y.tolist() == [1, 0]
    for path in (tmp_path / "pictures", "pictures", "folder:pictures"):
        made = examples_of(path, "members", side=8)
        assert made.x.shape == (3, 3, 8, 8) and made.y.tolist() == [0, 0, 1]
        assert made.classes == ("cat", "dog")
        assert torch.equal(made.x, data.load_image_folder(tmp_path / "pictures", 8).inputs(torch.arange(3)))


def test_what_is_no_file_of_examples(tmp_path, monkeypatch):
    np.savez(tmp_path / "other.npz", inputs=X.numpy())
    np.savez(tmp_path / "objects.npz", x=np.array([None]), y=Y.numpy())
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    (tmp_path / "set.csv").write_text("1,2")
    (tmp_path / "empty").mkdir()
    for name, told in {
        "other.npz": "no arrays ['x', 'y'], it holds ['inputs.npy']",
        "objects.npz": "cannot be read",
        "broken.npz": "cannot be read",
        "set.csv": "neither an .npz file nor a folder",
        "empty": "holds no folders",
        "none.npz": "no file or folder",
    }.items():
        with pytest.raises(ValueError, match="^members: ") as caught:
            examples_of(tmp_path / name, "members")
        assert told in str(caught.value) and name in str(caught.value)
    with pytest.raises(ValueError, match="members: nowhere:set: no module nowhere"):
        examples_of("nowhere:set", "members")


def spoiled(value):
    x = X.clone()
    x[[3, 7], 1] = value
    return x


WRONG = {
    "nothing": (([], []), "members is empty"),
    "no examples": (Listed([]), "members is empty"),
    "no examples of a loader": (DataLoader([], batch_size=2), "members is empty"),
    "lengths": ((X, Y[:5]), "members: x holds 12 examples, y 5 labels"),
    "nan": (
        (spoiled(float("nan")), Y),
        "members: 2 of 12 inputs hold nan or infinity, the first that of example 3",
    ),
    "infinity": ((spoiled(float("inf")), Y), "2 of 12 inputs"),
    "half a class": ((X, Y + 0.5), "y holds 0.5, must hold classes"),
    "no class": ((X, Y - 1), "y holds -1, must hold classes"),
    "soft labels": ((X, torch.full((12, 3), 1 / 3)), r"y is float32 \(12, 3\), must be one class"),
    "names": ((X, ["cat"] * 12), "members: y is a list of <U3, must be numbers"),
    "ragged": (([[1.0], [1.0, 2.0]], [0, 1]), "members: x is a list of parts that differ in shape"),
    "ragged set": (
        Listed([(X[0], 0), (X[0, :2], 0)]),
        r"example 1 is float32 \(2,\), example 0 float32 \(4,\)",
    ),
    "ragged stream": (
        DataLoader(Listed([(X[0], 0), (X[0, :2], 0)])),
        r"members: batch 2 holds inputs \(2,\)",
    ),
    "without labels": (
        Listed([(X[0],), (X[1],)]).rows * 2,
        "example 0 is a tuple, must be inputs with labels",
    ),
    "tensor": (X, "members is a torch.Tensor; examples are"),
    "keys": ({"a": X, "label": Y}, r"members has keys \['a', 'label'\]"),
    "again and again": (
        DataLoader(Listed(), sampler=torch.utils.data.RandomSampler(ROWS, replacement=True)),
        r"draws examples again and again \(RandomSampler\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_examples(case):
    given, told = WRONG[case]
    with pytest.raises(ValueError, match=told):
        examples_of(given, "members")


@pytest.mark.parametrize(
    "given", [Listed(), DataLoader(Listed(), batch_size=4), data.Dataset.of_features("toy", X, Y, 3)]
)
def test_what_does_not_fit_in_memory_says_how_large_it_is(given, monkeypatch):
    monkeypatch.setattr(examples, "_memory", lambda: 100)
    with pytest.raises(
        ValueError, match=r"members: \d+ examples take \d+ bytes in memory, this machine has 100 bytes"
    ):
        examples_of(given, "members")


def test_members_and_nonmembers_must_be_alike():
    a = Examples(X, Y)
    same_shape(a, Examples(X[:3], Y[:3]))
    for other, told in (
        (Examples(X[:, :2], Y), r"inputs float32 \(4,\), nonmembers float32 \(2,\)"),
        (Examples(X.double(), Y), r"inputs float32 \(4,\), nonmembers float64 \(4,\)"),
    ):
        with pytest.raises(ValueError, match=f"members have {told}"):
            same_shape(a, other)
    with pytest.raises(ValueError, match=r"classes \('cat', 'dog'\), nonmembers \('dog',\)"):
        same_shape(Examples(X, Y, ("cat", "dog")), Examples(X, Y, ("dog",)))
    same_shape(Examples(X, Y, ("cat", "dog")), a)  # who gives a pair numbers classes themselves
