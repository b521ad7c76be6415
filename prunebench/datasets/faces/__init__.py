"""Loads faces: identities to train on (`casia_webface`), and pairs to verify (`lfw`)."""
