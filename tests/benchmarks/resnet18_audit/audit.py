"""The audit of the networks that train.py left in this folder: `python train.py`, then `python audit.py`.

Without shadow models, then with four. With those it takes five times as long as the training: minutes on two cores.
"""

from train import compress, load, train

import mialib

names = ("original", "pruned", "control")
networks = {name: mialib.auditing.Checkpoint("train:resnet", f"{name}.pt") for name in names}
networks["int8"] = "int8.pt2"
given = {"members": load("data_batch_1"), "nonmembers": load("test_batch"), "control": "control"}
print(mialib.audit(networks, **given))
report = mialib.audit(networks, **given, shadows=mialib.Shadows(train, compress, n=4, folder="shadows"))
print(report)
report.to_html("audit.html")
