"""What each network is compared with: the baseline, and a control of its own or one for all.

A control is a network that was changed as long as a compressed one, but not compressed. It is written as one name for all
networks, or as a mapping {network: its control}, since a pruned network and a purified one were changed for other times.
There None stands for a network that needs no control, such as one that was only rounded.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mialib.params.vocabulary import nearest

CONTROL = "control"  # the name of a control that is given as a model; in a gate, each network's own control

Control = str | Mapping[str, str | None] | None  # by name


def with_controls(networks: Mapping[str, object], control) -> tuple[dict[str, object], Control]:
    """The networks with the controls among them, and the controls by name.

    Args:
        control: a name among the networks, any other model, or {network: either}. A model becomes
            "control", of several each "control of NETWORK"; a model that several share is one network.

    Raises:
        ValueError: a network has the name that a control would get.
    """
    every = dict(networks)

    def placed(one, name: str) -> str:
        if isinstance(one, str) and one in networks:
            return one
        for known in every.keys() - networks.keys():
            if every[known] is one or isinstance(one, str | Path) and every[known] == one:
                return known
        if name in every:
            raise ValueError(
                f"a network is called {name!r} and another one is given as the control; rename it"
            )
        every[name] = one
        return name

    if control is None:
        return every, None
    if not isinstance(control, Mapping):
        return every, placed(control, CONTROL)
    _check_keys(control, networks)
    made = {
        id(one)
        for one in control.values()
        if one is not None and not (isinstance(one, str) and one in networks)
    }
    single = len(made) == 1  # then it needs no longer name
    return every, {
        str(name): None if one is None else placed(one, CONTROL if single else f"control of {name}")
        for name, one in control.items()
    }


def resolved(names: Collection[str], baseline: str | None, control: Control) -> tuple[str, Control]:
    """The baseline, "original" or the first where it is None, and the control, both among the names.

    Raises:
        ValueError: unknown names, a control that is the baseline, or a control of a network that is not compared.
    """
    baseline = named("baseline", baseline, names) or (
        "original" if "original" in names else next(iter(names))
    )
    if isinstance(control, Mapping):
        _check_keys(control, names)
        # against the baseline it is compared anyway: so it needs no other
        control = {str(name): None if one == baseline else one for name, one in control.items()}
    for one in _controls(control):
        named("control", one, names)
        if one == baseline:
            raise ValueError(f"control and baseline are both {one!r}; the control is another network")
    for name in control if isinstance(control, Mapping) else ():
        if name == baseline or name in _controls(control):
            what = "the baseline" if name == baseline else "a control itself"
            raise ValueError(f"control names {name!r}, which is {what}; it maps networks that are compared")
    return baseline, control


def of_each(names: Collection[str], baseline: str, control: Control) -> dict[str, str | None]:
    """Each network that is compared -> its control; None: it has none, or needs none. Controls and the baseline are not compared."""
    own = control if isinstance(control, Mapping) else dict.fromkeys(names, control)
    left_out = {baseline, *_controls(control)}
    return {name: own.get(name) for name in names if name not in left_out}


def over(than: str | None, names: Collection[str], baseline: str, control: Control) -> dict[str, str]:
    """Each network that is compared -> what a gate compares it with.

    Args:
        than: None: the baseline. "control": each network's own. Else a network's name.

    Raises:
        ValueError: an unknown name, no control where it is asked for, or a network called "control" that is none.
    """
    own = of_each(names, baseline, control)
    if than != CONTROL:
        than = named("than", than, names) or baseline
        return {name: than for name in own if name != than}
    if CONTROL in names and CONTROL not in _controls(control):
        raise ValueError(f"a network is called {CONTROL!r} and is no control; rename it")
    if lacking := without(own, control):
        raise ValueError(
            f"the gate compares with the control, and none is given for {', '.join(lacking)}; give one"
        )
    return {name: one or baseline for name, one in own.items()}


def without(own: Mapping[str, str | None], control: Control) -> list[str]:
    """Of the networks that are compared, `of_each`, those without a control of which nobody said that they need none."""
    said = control if isinstance(control, Mapping) else {}
    return [name for name, one in own.items() if one is None and name not in said]


def of_words(words: Sequence[str], names: Collection[str]) -> Control:
    """A control from the command line: NAME for all networks, or NETWORK=NAME, once for each.

    Raises:
        ValueError: several for all, or two for one network.
    """
    pairs = [("", word) if word in names or "=" not in word else tuple(word.split("=", 1)) for word in words]
    if len(dict(pairs)) < len(pairs) or len(pairs) > 1 and "" in dict(pairs):
        raise ValueError(
            f"--control is {', '.join(words)}; it must be one NAME for all networks, or NETWORK=NAME once for each"
        )
    if not pairs:
        return None
    return pairs[0][1] if not pairs[0][0] else dict(pairs)


def named(what: str, name: str | None, names: Collection[str]) -> str | None:
    """The name itself, or None. Raises ValueError where there is no such network."""
    if name is not None and name not in names:
        raise ValueError(f"{what} names {name!r}{nearest(name, names)}; the networks are {', '.join(names)}")
    return name


def _controls(control: Control) -> list[str]:
    if control is None:
        return []
    named_ = control.values() if isinstance(control, Mapping) else [control]
    return list(dict.fromkeys(one for one in named_ if one is not None))


def _check_keys(control: Mapping, names: Collection[str]) -> None:
    if not control:
        raise ValueError("control is an empty mapping; it must be a network, or {network: its control}")
    for name in control:
        named("control", str(name), names)
