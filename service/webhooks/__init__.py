"""Webhooks: a finished job tells an address that its owner named (Standard Webhooks)."""
