"""The commands of `metalora`, one file a family: its flags, its help, and what it does with them.

A family is a module with `add_to(commands)`. Settings go in, one job runs, and the last lines say where the result is
and what to type next. Whatever is slow to import is imported inside the functions, so that help answers at once.
"""
