"""Many runs at a glance: how far each has come, and what completes them. Never imports torch."""
