"""What a training run tells while it runs: its log, the trackers, and how well it uses the machine."""
