"""Exports of a trained run: files that run without this package."""
