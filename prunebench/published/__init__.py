"""The published record: what papers print, where, and whether it agrees with itself.

A CSV per data set, a line per result, figures as printed. Percentages and differences that are not
printed stay empty: they are derived when a row is shown. Columns:

id                       short, unique, kept for good; new rows get new ones
model, method            as the field calls them
paper, year              whose method it is
baseline_top1 ... top5   percent, before and after; an error printed is 100 minus it
spread                   printed standard deviation of top1, in points
drop                     printed difference, baseline minus top1, in points
params_*, macs_*         before, after: counts, one per multiply-add; reduction: printed percentage
                         that goes; factor: printed number of times smaller
convention               what the source counts, and how its accuracy came about
source                   where the figures stand: paper and table, or repository@commit:file
quoted                   "yes" where the source quotes somebody else's paper
beside                   "yes" where the row stands beside runs of the same network and data
doubt                    columns that contradict others, or the network: shown, never derived from
notes                    what else the source says
"""
