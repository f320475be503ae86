"""The training loop and what it needs: checkpoints, schedules, optimizers, a clean stop."""
