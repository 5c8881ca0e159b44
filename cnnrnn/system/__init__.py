"""The process and the machine: files, memory, devices, signals, progress."""
