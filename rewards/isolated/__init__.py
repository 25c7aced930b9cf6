"""Rewards that live elsewhere: in a process of their own, with packages of their own, or on another machine."""
