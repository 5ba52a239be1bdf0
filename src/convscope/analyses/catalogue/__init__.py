"""The analyses, a file each; see `convscope.analyses.analysis`."""
