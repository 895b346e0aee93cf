"""A frozen dataset as files that others can read: one small module per format.

trl.py, comparisons.py, raw.py   one row of the ledger -> rows of the format
pseudonyms.py                    annotators by names that hold within one export alone
card.py                          README.md, the dataset card
folder.py                        the whole folder: data, manifest, card, published by a rename
"""
