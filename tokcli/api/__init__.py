"""What scripts call: ``tokcli`` offers these names as its own, see docs/python.md."""
