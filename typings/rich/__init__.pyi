# What procflow uses of rich.
