"""Gaussians that bend along a ridge, fitted to draws or to states of chains."""
