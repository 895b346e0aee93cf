"""Other people's files into the ledger: one small module per public format.

lines.py    bytes of a file -> one raw row at a time, in bounded memory
csv_rows.py, parquet.py   the same of tables and of Parquet files
rows.py     raw row -> checked JSON; the shape every format is brought to; Refused
<format>.py JSON of a row -> that shape, or Refused with the reason
parsers.py  a format's name -> what reads its rows
votes.py    an answer in the ledger, or found there
stores.py   a row -> ledger; together.py does it for many new ones at once
load.py     a file -> ledger, in chunks, every row accounted for
"""
