"""Other people's files into the ledger: one small module per public format.

lines.py    bytes of a file -> one raw row at a time, in bounded memory
csv_rows.py, parquet.py   the same of tables and of Parquet files
rows.py     raw row -> checked JSON; the shape every format is brought to; Refused
<format>.py JSON of a row -> that shape, or Refused with the reason
votes.py    an answer in the ledger, or found there
load.py     shapes -> ledger, in chunks, every row accounted for
"""
