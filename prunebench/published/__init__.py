"""The published record: what papers print, where, and whether it is consistent.

There is a CSV per data set with a line per result, figures as printed; `record` reads it. `check`
finds contradictions, `nets` has our own networks' counts, and `nearest` finds the command that
comes nearest to a row. Percentages and differences that are not printed stay empty: they are
derived when a row is shown. Columns:

id                       short and unique; never changed or reused
model, method            the names that the field uses
paper, year              that introduced the method
baseline_top1 ... top5   accuracy in percent, before and after; a printed error is converted
spread                   printed standard deviation of top1, in points
drop                     printed difference, baseline minus top1, in points
params_*, macs_*         before, after: counts, one per multiply-add; reduction: printed percentage
                         removed; factor: printed number of times smaller
convention               what the source counts, and how its accuracy was measured
source                   where the figures are: paper and table, or repository@commit:file
quoted                   "yes" if the source quotes somebody else's paper
beside                   "yes" if tables show the row beside runs of the same network and data
doubt                    columns that contradict others, or the network; nothing is derived from
                         them
notes                    what else the source says
"""
