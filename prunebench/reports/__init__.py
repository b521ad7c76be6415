"""Shows finished runs as tables, plots and a web page; reads records only, never torch.

Begin with `load.load_runs`, which reads the files of runs, and `rows.rows_of`, which merges runs
that differ only in the seed into rows. `table` draws rows as text, `plot` as pictures, `page` as
one HTML file. `named` defines the columns, `notes` the lines below a table.
"""
