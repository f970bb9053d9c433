"""The deadline policy at work on a run: what is known, what is decided, and the moves that follow.

`terms` says where a run may be, fixed at launch; `view` is what is known at one moment; `decision` asks the policy
and says why; `guide` acts, each decision being in the ledger before anything is done about it.
"""
