def compare(work, **k):
    pass
