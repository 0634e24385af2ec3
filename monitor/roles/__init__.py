"""The asyncio shell: one file per role, each "consume, transform, produce, commit"."""
