"""What dictionaries know of words: the colour a name stands for, and what a word means. See docs/data.md."""
