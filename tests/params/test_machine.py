"""What this machine cannot do is said of the parameter that asks for it."""

import pytest

from mialib.params import machine


def problems(**values):
    return dict(machine.problems(values))


@pytest.mark.parametrize("present, auto", [(False, "cpu"), (True, "cuda")])
def test_auto_takes_what_there_is(monkeypatch, present, auto):
    monkeypatch.setattr("torch.cuda.is_available", lambda: present)
    assert machine.device("cpu") == "cpu" and machine.device("auto") == auto


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert machine.device("cuda") == "cuda" and problems(device="cuda") == {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="device is 'cuda'.*no CUDA device.*take 'auto' or 'cpu'"):
        machine.device("cuda")
    assert "no CUDA device" in problems(device="cuda")["device"]


@pytest.mark.parametrize("has", [True, False])
def test_bf16_needs_a_machine_that_computes_in_it(monkeypatch, has):
    monkeypatch.setattr(machine, "has_bf16", lambda device: has or device != "cpu")
    found = problems(precision="bf16", device="cpu")
    assert found == ({} if has else {"precision": found["precision"]})
    assert has or "precision is 'bf16', and this machine's CPU does not compute in it" in found["precision"]
    assert problems(precision="float32", device="cpu") == {}


@pytest.mark.parametrize(
    ("device", "present", "fine"), [("cpu", False, False), ("auto", False, False), ("auto", True, True)]
)
def test_tf32_is_cudas_alone(monkeypatch, device, present, fine):
    monkeypatch.setattr("torch.cuda.is_available", lambda: present)
    found = problems(precision="tf32", device=device)
    assert fine == (found == {})
    assert (
        fine
        or "precision is 'tf32', and that is CUDA's alone; on this machine's CPU take 'float32'"
        in found["precision"]
    )


def test_whether_a_cpu_has_bf16_is_what_pytorch_says(monkeypatch):
    class Ops:
        pass

    monkeypatch.setattr("torch.ops.mkldnn", Ops())
    assert machine.has_bf16("cpu") is True  # it does not say
    for said in (True, False):
        Ops._is_mkldnn_bf16_supported = staticmethod(lambda said=said: said)
        assert machine.has_bf16("cpu") is said
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    assert machine.has_bf16("cuda") is False


@pytest.mark.parametrize(("cores", "most"), [(None, 16), (2, 16), (4, 16), (8, 32), (96, 384)])
def test_processes_are_some_for_each_core(monkeypatch, cores, most):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert problems(n_jobs=most) == {}
    assert f"n_jobs is {most + 1}" in problems(n_jobs=most + 1)["n_jobs"]
    assert f"take at most {most}" in problems(n_jobs=100_000)["n_jobs"]


def test_memory_is_the_machines_or_what_a_container_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_LIMITS", (str(tmp_path / "max"),))
    whole = machine.memory()
    assert whole is None or whole > 2**28
    (tmp_path / "max").write_text("max\n")
    assert machine.memory() == whole
    (tmp_path / "max").write_text("1048576\n")
    assert machine.memory() == 1048576


def test_a_cuda_device_has_memory_of_its_own(monkeypatch):
    class Properties:
        total_memory = 80 * 2**30

    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: Properties)
    assert machine.memory("cuda") == 80 * 2**30 != machine.memory("cpu")


def test_where_nobody_says_the_memory_is_unknown(monkeypatch):
    def no(name):
        raise ValueError(name)

    monkeypatch.setattr("os.sysconf", no)
    monkeypatch.setattr(machine, "_LIMITS", ())
    assert machine.memory() is None
