"""The five experiments of VizFold's format study, done again.

Run by ``python -m benchmarks.vizfold_study``. What was asked there, what is measured instead, and
what comes out: ``docs/vizfold-study.md``.
"""
