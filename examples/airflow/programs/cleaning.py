"""A module that words.py imports."""


def clean(word: str) -> str:
    return word.strip(".,;").lower()
