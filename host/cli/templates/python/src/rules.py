"""The decisions of the handler, without host calls."""


def greeting(word: str, who: str) -> str:
    """A greeting with a word and a name."""
    return f"{word} {who}"
