"""Carries out one run, from a checked configuration (`prunebench.config.Run`) to its report.

Begin with `runner`: `carry_out` claims the run's folder and `execute` calls the stages in order.
`baseline` trains or loads the dense network, `prune` cuts it (`step` is one cut), and `write_up`
makes the report. The stages share a `context.RunContext`. Thanks to `folder` and `ledger` a killed
run can go on; `workers` are the further processes of a run that trains on several devices.
"""
