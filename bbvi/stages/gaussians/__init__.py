"""Gaussians: starts are raced, a full-rank Gaussian is matched to scores, modes are told apart."""
