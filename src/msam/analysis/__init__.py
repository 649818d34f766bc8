"""From records to tables, figures and sentences: pure functions on the frames of `msam.records.load`.

Nothing in here trains, and nothing imports torch.
"""
