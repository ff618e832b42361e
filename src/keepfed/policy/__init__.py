"""Decisions without hands: observations in, commands out; no torch, no process, no clock (time is an argument)."""
