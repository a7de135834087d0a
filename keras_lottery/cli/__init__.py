"""The console script: one short file a command, flags to one library call."""
