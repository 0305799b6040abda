"""Scores of pictures that are there, whoever made them."""
