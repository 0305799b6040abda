"""The pages and tables of a benchmark run, from its results.json alone (and its pictures, where they are there).

schema, results     the file, checked whole
html, charts, ...   parts of a page
page, leaderboard   one run; several runs
tables_csv          the same numbers for a spreadsheet
"""
