# What procflow uses of tqdm.
