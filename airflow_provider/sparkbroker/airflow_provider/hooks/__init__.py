"""The hook, for operators of your own."""
