"""Reports: tables made from finished runs; reads records only, never torch."""
