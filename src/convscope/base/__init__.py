"""What every room stands on: errors in one line, settings that are checked, the terminal, signals, threads. No PyTorch."""
