# What procflow uses of joblib, which has no types of its own.
