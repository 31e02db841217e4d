"""Reports of many runs: tables of them, their statistics, and figures."""
