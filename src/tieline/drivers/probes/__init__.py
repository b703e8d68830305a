"""Probes: what a site measures of the way to others' doors and to reference points, every probe bounded in bytes."""
