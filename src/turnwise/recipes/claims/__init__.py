"""The debate's claims as experiments: what is claimed, what was measured, and a verdict that may be "false as stated".

A claim is one file that says in words what is claimed, and in comparisons of figures what it would take (`claim`). The
comparisons are written down before anything is run; `verdict` decides them on intervals over seeds, by one rule for all.
"""
