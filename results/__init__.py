"""pandas: collect, compare, draw."""
