"""Makes a web page of runs: one HTML file that needs neither network nor server."""
