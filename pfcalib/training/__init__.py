"""Batches, networks, trees and their training: features and samples in, trained models out."""
