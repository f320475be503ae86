"""What each command does, told top to bottom."""
