"""What the console scripts run: the commands are here, and each room beside them has what one kind of work needs."""
