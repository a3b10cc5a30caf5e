"""The structures that the models know: names, groups, codes, colours."""
