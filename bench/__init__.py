"""Benchmarks: one script per claim, each printing its figure beside an anchor measured in the same run."""
