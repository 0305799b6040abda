"""The pages and tables of a benchmark run, from its results.json alone (and its pictures, where they are there).

results, reading    what the file holds, checked whole against its schema
choice, thumbnails  which pictures are shown, and how large
headline, tables, charts, galleries, provenance     parts of a page
page, leaderboard   one run; several runs
tables_csv          the same numbers for a spreadsheet
"""
