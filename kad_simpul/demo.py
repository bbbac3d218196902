def run_demo(**kw): raise SystemExit(1)
