"""Measures KAD: ``make bench``. What is measured, on what, and what came out: docs/performance.md."""
