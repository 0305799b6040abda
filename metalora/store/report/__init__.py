"""The page and tables of a benchmark run, from its results.json alone (and its pictures, where they are there).

results             what the file holds, checked whole against its schema
scores              what the scores are called and how they are written, and the tables for a spreadsheet
pictures, charts    which pictures are shown and how large; the drawings
page, templates/    the markup
"""
