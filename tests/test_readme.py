"""What the README promises."""

import re

import pytest
import torch

from mialib import REPO_ROOT
from mialib.asking import Views

README = (REPO_ROOT / "README.md").read_text()


def test_the_example_attack_runs_and_finds_an_obvious_member():
    code = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    names = {}
    exec(code, names)  # the block is the project's own
    posteriors = torch.tensor([[0.99, 0.01], [0.6, 0.4], [0.98, 0.02], [0.55, 0.45]], dtype=torch.float64)
    views = Views(
        posteriors.log()[None], torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, 2, dtype=torch.float64)
    )
    margins = names["loud_and_sure"](views, views, torch.tensor([[True, False, True, False]]))
    assert (margins > 0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", README))))
def test_links_lead_somewhere(target):
    assert (REPO_ROOT / target).exists()


def test_ci_runs_exactly_the_test_line():
    line = re.search(r"^python3 -m venv .*pytest.*$", README, re.M)
    assert line, "the test line must stand on one line of the README"
    assert "README.md" in (REPO_ROOT / ".ci" / "run").read_text()
